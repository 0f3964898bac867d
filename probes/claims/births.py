"""Massive activations of prompts that begin differently, which two claims read.

Position 0 sees itself alone: behind the same first token its states are the same in every prompt, however many prompts
there are. So the prompts are run without BOS, and one prompt stands for each first token.
"""

from __future__ import annotations

from probes.claims.bench import Bench, Item
from probes.claims.claim import Untestable

__all__ = ["MIN_STARTS", "first_tokens"]

MIN_STARTS = 5


def first_tokens(bench: Bench) -> list[Item]:
    """One prompt of each first token, without BOS. Raises Untestable below 5."""
    once: dict[int, Item] = {}
    for item in bench.items(bos=False):
        once.setdefault(int(bench.capture(item).token_ids[0]), item)
    if len(once) < MIN_STARTS:
        raise Untestable(
            f"The prompts of {bench.prompts.name} begin with {len(once)} different tokens; position 0 sees itself alone, "
            f"so it takes {MIN_STARTS} that are independent."
        )
    return list(once.values())
