"""Orders of a text's tokens that keep the tokens and break the text: the control of every measure of geometry.

``blocks``: None shuffles all tokens; S cuts the text into 4^S blocks of nearly equal length and shuffles those, so that
S = 1 keeps quarters of the text whole, and a large S is the full shuffle (Viswanathan et al. 2025, arXiv 2501.10573).
"""

import numpy as np
from jaxtyping import Int64

__all__ = ["SEEDS", "shuffled_order"]

SEEDS = (0, 1, 2, 3, 4)
_FEWEST = 3


def shuffled_order(n: int, seed: int, blocks: int | None = None, *, fixed: int = 1) -> Int64[np.ndarray, " n"]:
    """Where each new position's token stood before; the first ``fixed`` positions (BOS) stay.

    The order always differs from the original. Raises ValueError for fewer than 3 tokens to shuffle, a negative seed or
    number of fixed tokens, and an S below 1.
    """
    if fixed < 0 or seed < 0:
        raise ValueError(f"the seed and the number of fixed tokens must be 0 or more, not {seed} and {fixed}")
    rest = n - fixed
    if rest < _FEWEST:
        raise ValueError(f"there are only {max(rest, 0)} tokens to shuffle; it takes at least {_FEWEST}")
    if blocks is not None and blocks < 1:
        raise ValueError(f"the block permutation index must be 1 or more, not {blocks}")
    draw = np.random.default_rng(seed)
    count = rest if blocks is None else min(rest, 4**blocks)
    pieces = np.array_split(np.arange(fixed, n), count)
    order = draw.permutation(count)
    while np.array_equal(order, np.arange(count)):
        order = draw.permutation(count)
    return np.concatenate([np.arange(fixed), *(pieces[int(i)] for i in order)]).astype(np.int64)
