"""A capture of everything over one prompt, and the context a probe runs in."""

import torch

from probes.model.capture import Capture, special_positions
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces, text_ids
from probes.probe import Context
from probes.progress import Progress
from tests import tiny

__all__ = ["CONTEXT", "capture_of"]

CONTEXT = Context("all", {}, Progress())


def capture_of(model: LoadedModel, text: str = tiny.TEXT, token_ids: list[int] | None = None) -> Capture:
    ids = torch.tensor(text_ids(model, text) if token_ids is None else token_ids)
    sites, reductions = (
        frozenset({"resid", "head_z", "mlp_out"}),
        frozenset({"column_sum", "row_entropy", "value_norms"}),
    )
    kept = forward(model, ids, sites, reductions, Progress())
    return Capture(model, ids, pieces(model.tokenizer, ids), special_positions(model, ids), kept.__getitem__)
