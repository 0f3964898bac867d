"""What a run may read besides its own prompt: the captures of other stored runs, and the numbers its edits need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cache.errors import TensorAbsent
from cache.store import Store
from probes.errors import BadRequest
from probes.model.bank import bank_id
from probes.model.capture import Capture, special_positions
from probes.model.editing import Editing, resolve
from probes.model.edits import Edit, FromRun, Mean, check_edit
from probes.model.forward import forward
from probes.model.loaded import LoadedModel, ModelFacts
from probes.model.shelf import Shelf
from probes.model.tokenise import pieces
from probes.probe import Reduction, Site
from probes.progress import Progress
from probes.request import RunRequest
from probes.saes.settling import settle

__all__ = ["Sources"]

_SITES: frozenset[Site] = frozenset({"resid"})
_REDUCTIONS: frozenset[Reduction] = frozenset({"column_sum"})


class Sources:
    """The way of one request to other runs. ``passes`` counts the forward passes their evicted tensors took again."""

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self._store, self._shelf = store, shelf
        self._captures: dict[str, Capture] = {}
        self.passes = 0

    def settled(self, request: RunRequest, model: LoadedModel) -> RunRequest:
        """The request with its banks by their full names, its SAEs by their content, latents with their size and concepts
        with their latents, all edits checked against model, prompt and store.

        Raises BadRequest, before anything runs, for a place, bank or run that does not exist or does not fit; runs
        that probes read (``Params.runs``) are checked too.
        """
        facts = model.facts
        edits = []
        for edit in request.edits:
            check_edit(edit, facts, len(request.token_ids))
            if isinstance(edit.source, Mean):
                edit = dataclasses.replace(edit, source=Mean(bank_id(edit.source.bank, facts)))
            elif isinstance(edit.source, FromRun):
                self._check_run(edit, edit.source.run, facts, len(request.token_ids))
            edit, passes = settle(edit, model, request.token_ids, self._store)
            self.passes += passes
            edits.append(edit)
        for call in request.probes:
            for run in getattr(call.full_params(), "runs", ()):
                self._check_read(call.name, run, facts, len(request.token_ids))
        return dataclasses.replace(request, edits=tuple(edits))

    def capture(
        self, model: LoadedModel, request: RunRequest, read: Callable[[str], Tensor], progress: Progress
    ) -> Capture:
        """The capture of a request whose tensors ``read`` gives; the numbers of its edits are found when needed."""
        ids = torch.tensor(request.token_ids, dtype=torch.long)
        find = self._finder(model, request, progress) if request.edits else None
        special = special_positions(model, ids)
        return Capture(model, ids, pieces(model.tokenizer, request.token_ids), special, read, request.edits, find)

    def of_run(self, run: str) -> Capture:
        """The capture of a stored run; what was evicted of it takes one forward pass. Raises BadRequest for no such run."""
        if run not in self._captures:
            self._captures[run] = self._opened(run)
        return self._captures[run]

    def _opened(self, run: str) -> Capture:
        stored = self._stored(run)
        request = RunRequest.from_stored(stored["request"])
        model = self._shelf.get(request.model, request.dtype, request.device)
        if model.facts.fingerprint != stored["fingerprint"]:
            raise BadRequest(f"The run {run[:64]!r} was made with other weights than {request.model} has now.")
        again: dict[str, Tensor] = {}

        def read(name: str) -> Tensor:
            if not again:
                try:
                    return self._store.tensor(stored["capture_id"], name)
                except TensorAbsent:
                    self.passes += 1
                    again.update(forward(model, capture.token_ids, _SITES, _REDUCTIONS, Progress(), capture.editing))
            return again[name]

        capture = self.capture(model, request, read, Progress())
        return capture

    def _finder(self, model: LoadedModel, request: RunRequest, progress: Progress) -> Callable[[], Editing]:
        return lambda: resolve(request.edits, model, self.of_run, progress)

    def _stored(self, run: str) -> dict[str, Any]:
        stored = self._store.run(run) if run.isascii() else None  # JSON can hold half a character, DuckDB cannot
        if stored is None:
            raise BadRequest(f"The store holds no run {run[:64]!r}.")
        return stored

    def _check_read(self, probe: str, run: str, facts: ModelFacts, n_tokens: int) -> None:
        """Probes that read another run read it token by token."""
        stored = self._stored(run)
        theirs, ours = stored["capture"]["facts"]["d_vocab"], facts.d_vocab
        if stored["n_tokens"] != n_tokens:
            raise BadRequest(
                f"{probe} needs a run of the same length: {run[:8]} has {stored['n_tokens']} tokens, this one {n_tokens}."
            )
        if theirs != ours:
            raise BadRequest(f"{probe} needs a run of the same vocabulary: {run[:8]} has {theirs}, this model {ours}.")

    def _check_run(self, edit: Edit, run: str, facts: ModelFacts, n_tokens: int) -> None:
        stored = self._stored(run)
        theirs = stored["capture"]["facts"]
        names = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head")
        odd = [name for name in names if theirs[name] != getattr(facts, name)]
        if odd:
            raise BadRequest(
                f"Edit: the run {run[:8]} is of a model with {odd[0]} {theirs[odd[0]]}, {facts.name} has "
                f"{getattr(facts, odd[0])}: its states do not fit."
            )
        last = n_tokens - 1 if edit.positions is None else max(map(int, edit.positions))
        if last >= stored["n_tokens"]:
            raise BadRequest(
                f"Edit: the run {run[:8]} has positions 0..{stored['n_tokens'] - 1}, there is no state at {last} to set."
            )
