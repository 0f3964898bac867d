"""For people with a model in memory: the same runner, no file, no app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from cache.store import Store
from probes.model.edits import Edit, parse_edit
from probes.model.load import from_memory
from probes.model.shelf import Shelf
from probes.model.tokenise import chat_ids, text_ids
from probes.progress import Progress
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.runner import Runner, RunResult

__all__ = ["explore"]


def explore(
    hf_model: PreTrainedModel,
    tokenizer: Any,
    text: str | Sequence[Mapping[str, str]],
    probes: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
    *,
    mask: str = "all",
    bos: bool = True,
    edits: Sequence[Edit | Mapping[str, Any]] = (),
) -> RunResult:
    """Run probes on a text (or on chat messages) with a Hugging Face model that is already loaded.

    ``probes`` are names, or pairs of a name and parameters; None asks the default ones. ``edits`` change the pass, as
    :class:`Edit` or as the mappings of ``run --edit``. The model is switched to the
    reducing attention function and checked first. The result gives tables as pandas (``result.table("layer_metrics")``)
    and named tensors (``result.tensor("resid.12")``), held in memory until it is dropped.

    Raises BadRequest, ModelRefused, PlanRefused or NonFinite, each in one sentence.
    """
    name = str(getattr(hf_model.config, "_name_or_path", "") or type(hf_model).__name__)
    model = from_memory(hf_model, tokenizer, name, None, Progress())
    shelf = Shelf()
    shelf.put(model)
    ids = text_ids(model, text, bos=bos) if isinstance(text, str) else chat_ids(model, text, bos=bos)
    asked = DEFAULT_PROBES if probes is None else tuple(_call(probe) for probe in probes)
    changes = tuple(edit if isinstance(edit, Edit) else parse_edit(edit) for edit in edits)
    request = RunRequest(name, ids, asked, mask=mask, dtype=model.facts.dtype, device=model.facts.device, edits=changes)
    return Runner(Store.open(":memory:"), shelf).run(request)


def _call(asked: str | tuple[str, Mapping[str, Any]]) -> ProbeCall:
    return ProbeCall(asked) if isinstance(asked, str) else ProbeCall(asked[0], asked[1])
