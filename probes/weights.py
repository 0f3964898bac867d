"""Weights: singular values of the weight matrices themselves, whatever text is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from analysis.spectrum import Spectrum, spectrum
from probes.checks import require, some_whole
from probes.errors import BadRequest
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_MATRICES_A_BLOCK = 7


@dataclass(frozen=True)
class Params:
    """``blocks``: "all" or blocks 0..L-1."""

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    blocks: Literal["all"] | tuple[int, ...] = "all"

    def __post_init__(self) -> None:
        every = isinstance(self.blocks, str) and self.blocks == "all"
        require(every or some_whole(self.blocks), "weights.blocks", '"all" or whole numbers from 0', self.blocks)


spec = ProbeSpec(
    name="weights",
    version=1,
    question="Are the spectra of the weight matrices heavy-tailed, and which blocks stand out?",
    sites=frozenset(),
    reductions=frozenset(),
    tables=("weight_spectra",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """A float64 copy and the Gram matrix of each matrix in work, and the rows of the table."""
    n_blocks = facts.n_layers if params.blocks == "all" else len(params.blocks)
    at_work = n_workers() * (facts.d_model * max(facts.d_mlp, facts.d_model) + 2 * facts.d_model**2) * 8
    return at_work + n_blocks * _MATRICES_A_BLOCK * facts.d_model * 120


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``weight_spectra`` of the model: k-th singular value of each linear map of the blocks, not centred.

    ``matrix`` is the role of the map (``attn.q`` ... ``mlp.out``); the store keys the rows by the fingerprint of the
    weights. Raises BadRequest for a block that does not exist.
    """
    facts = capture.model.facts
    blocks = range(facts.n_layers) if params.blocks == "all" else sorted(set(params.blocks))
    if blocks[-1] >= facts.n_layers:
        raise BadRequest(f"weights.blocks must be from 0 to {facts.n_layers - 1}, not {blocks[-1]}")
    places = [(block, role) for block in blocks for role in capture.model.weight_matrices(block)]

    def singular_values(place: tuple[int, str]) -> Spectrum:
        matrix: Tensor = capture.model.weight_matrices(place[0])[place[1]]
        return spectrum(matrix.double(), centred=False)

    rows: list[pd.DataFrame] = []
    for (block, role), found in zip(places, in_parallel(singular_values, places), strict=True):
        context.progress.step(len(rows) / len(places), f"weight matrices, block {block} of {facts.n_layers}")
        columns = {"block": block, "matrix": role, "k": np.arange(1, found.rank + 1), "singular_value": found.s}
        rows.append(pd.DataFrame(columns))
    return Result({"weight_spectra": pd.concat(rows, ignore_index=True)})
