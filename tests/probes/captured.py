"""A capture of everything over one prompt, clean or edited, and the context a probe runs in."""

from typing import Any, get_args

import torch

from probes.model.capture import Capture, special_positions
from probes.model.editing import Editing, resolve
from probes.model.edits import check_edit, parse_edit
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces, text_ids
from probes.probe import Context, Reduction, Site
from probes.progress import Progress
from tests import tiny

__all__ = ["CONTEXT", "capture_of", "edited", "editing_of"]

CONTEXT = Context("all", {}, Progress())


def capture_of(model: LoadedModel, text: str = tiny.TEXT, token_ids: list[int] | None = None) -> Capture:
    ids = torch.tensor(text_ids(model, text) if token_ids is None else token_ids)
    sites, reductions = (
        frozenset({"resid", "head_z", "mlp_out"}),
        frozenset({"column_sum", "row_entropy", "value_norms"}),
    )
    kept = forward(model, ids, sites, reductions, Progress())
    return Capture(model, ids, pieces(model.tokenizer, ids), special_positions(model, ids), kept.__getitem__)


def editing_of(model: LoadedModel, edits: list[dict[str, Any]], n_tokens: int, other: Capture | None = None) -> Editing:
    """Edits with their numbers; ``other`` is what every source ``{"run": ...}`` reads."""
    parsed = tuple(parse_edit(edit) for edit in edits)
    for edit in parsed:
        check_edit(edit, model.facts, n_tokens)
    return resolve(parsed, model, lambda _: other, Progress())


def edited(
    model: LoadedModel, *edits: dict[str, Any], other: Capture | None = None, token_ids: list[int] | None = None
) -> Capture:
    """The capture of every site and reduction under edits; without any, of a pass with an empty list of them."""
    ids = torch.tensor(text_ids(model, tiny.TEXT) if token_ids is None else token_ids)
    editing = editing_of(model, list(edits), len(ids), other)
    sites = frozenset(site for site in get_args(Site) if site != "final")
    kept = forward(model, ids, sites, frozenset(get_args(Reduction)), Progress(), editing)
    words, special = pieces(model.tokenizer, ids), special_positions(model, ids)
    return Capture(
        model, ids, words, special, kept.__getitem__, tuple(one.edit for one in editing.edits), lambda: editing
    )
