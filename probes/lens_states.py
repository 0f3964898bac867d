"""What the lens unembeds: states of a variant at points and positions, and their logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from analysis.lens import CHUNK_ROWS, Variant, View, mean_corrected
from probes.errors import BadRequest
from probes.lenses.folder import lens_folder, load_lens
from probes.model.resume import resume
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.capture import Capture

__all__ = ["LensStates", "tail_states"]


def tail_states(
    capture: Capture, points: Sequence[int], blocks: int, progress: Progress
) -> dict[int, Float32[Tensor, "tokens d_model"]]:
    """The tail lens (the coda lens used on Huginn, for a plain decoder): the last residual point that follows
    if the last ``blocks`` blocks read the state of each point, all positions from the same point.

    From points within the last ``blocks`` blocks only those that are left run, so there it is the model's own output;
    with 0 blocks it is the state itself, the logit lens. Raises BadRequest for more blocks than the model has.
    """
    last = capture.model.facts.n_layers
    if blocks > last:
        raise BadRequest(f"lens.tail must be 0 to {last}, the blocks of {capture.model.facts.name}, not {blocks}")
    found = {}
    for number, point in enumerate(points):
        progress.step(number / len(points), f"tail lens, the last {blocks} blocks from point {point}")
        start = max(point, last - blocks)
        state = capture.resid(point)
        found[point] = resume(capture.model, capture.token_ids, start, state[None], capture.editing)[0]
    return found


class LensStates:
    """Gives logits of views at positions, keeping no more than the residual points it was asked for.

    ``tuned`` names a tuned lens, ``tail`` the blocks of the tail lens; None where that variant is not read.
    """

    def __init__(
        self,
        capture: Capture,
        points: Sequence[int],
        positions: Int64[np.ndarray, " positions"],
        variants: Sequence[Variant],
        progress: Progress,
        *,
        tuned: str | None,
        tail: int | None,
    ) -> None:
        self._model = capture.model
        self.last = capture.model.facts.n_layers
        rows = slice(None) if len(positions) == capture.n_tokens else torch.from_numpy(positions)
        self._states = {point: capture.resid(point)[rows] for point in {*points, self.last}}
        self._tuned, self._name, self._blocks = None, tuned, tail
        if tuned is not None:
            self._tuned = load_lens(lens_folder(tuned), self._model)
        self._bank = self._model.mean_bank(progress.part(0.0, 0.5)) if "mean" in variants else None
        self._tail: dict[int, Tensor] = {}
        if tail is not None:
            found = tail_states(capture, points, tail, progress.part(0.5, 1.0))
            self._tail = {point: state[rows] for point, state in found.items()}
        # Rows of W_U beyond the tokenizer are padding: no token, often never trained.
        self.vocabulary = min(self._model.facts.d_vocab, len(self._model.tokenizer))
        self.device = self._model.device
        self.n_positions = len(positions)

    def logits(self, views: Sequence[View], where: slice) -> Float32[Tensor, "rows vocab"]:
        """Views outermost; neighbours that are projected alike share one matmul."""
        pieces = []
        for unnormed, alike in groupby(views, key=lambda view: view.variant == "no_norm"):
            states = torch.cat([self._state(view, where) for view in alike])
            pieces.append(self._project(states) if unnormed else self._model.unembed(states))
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:, : self.vocabulary]

    def final_top1(self) -> Int64[Tensor, " positions"]:
        """The model's own top token at every position asked for."""
        steps = range(0, self.n_positions, CHUNK_ROWS)
        last = View(self.last, "raw")
        return torch.cat([self.logits([last], slice(i, i + CHUNK_ROWS)).argmax(-1).cpu() for i in steps])

    def notes(self, n_tokens: int) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        notes = (
            []
            if self.n_positions == n_tokens
            else [f"The lens was read at {self.n_positions} of {n_tokens} positions."]
        )
        if self._bank is not None:
            notes.append(f"Mean-corrected lens: means over {self._bank.n_tokens:,} tokens ({self._bank.source}).")
        if self._name is not None:
            notes.append(f"Tuned lens: {self._name}.")
        if self._blocks is not None:
            notes.append(f"Tail lens: the last {self._blocks} blocks ran on the state of each point.")
        return tuple(notes)

    def _state(self, view: View, where: slice) -> Float[Tensor, "positions d_model"]:
        if view.variant == "tail":
            return self._tail[view.layer][where]
        state = self._states[view.layer][where]
        if view.variant == "mean" and self._bank is not None:
            return mean_corrected(state, self._bank.means[view.layer], self._bank.means[self.last])
        if view.variant == "tuned" and self._tuned is not None:
            return self._tuned.translate(state, view.layer)
        return state

    @torch.no_grad()
    def _project(self, states: Float[Tensor, "rows d_model"]) -> Float32[Tensor, "rows vocab"]:
        """W_U alone, as LLM-Microscope applies it."""
        logits: Tensor = self._model.sites.unembed(states.to(self._model.device, self._model.dtype))
        return logits.float()
