"""What the items of a session read, and a session as a bundle that carries just that. No streamlit."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from torch import Tensor

from app.items import item_view, options
from app.panels import registry
from app.panels.panel import Panel
from app.services import Memo, Services
from app.view import View
from cache.bundle_write import export_bundle
from cache.errors import SessionAbsent, StoreError
from cache.session_rules import Item
from probes.errors import BadRequest
from probes.runner import RunResult

__all__ = ["Record", "Recording", "export", "make_item", "reads"]

_NEVER = "resid."  # residual states are never carried: they are the text run again


@dataclass
class Record:
    """Runs that were opened, tensors that were read (owner, name), and token ids that were decoded, by model."""

    runs: dict[str, RunResult] = field(default_factory=dict)
    tensors: set[tuple[str, str]] = field(default_factory=set)
    tokens: dict[str, set[int]] = field(default_factory=dict)

    def vocabulary(self, services: Services) -> dict[str, dict[int, str]]:
        """The texts of the decoded tokens, by tokenizer."""
        tokenizers = {result.info.model: result.facts.tokenizer for result in self.runs.values()}
        found = {}
        for model, ids in sorted(self.tokens.items()):
            if model in tokenizers:
                ordered = sorted(ids)
                texts = services.decode(model, ordered, tokenizers[model])
                found[tokenizers[model]] = dict(zip(ordered, texts, strict=True))
        return found


@dataclass
class Recording(Services):
    """Services that remember what was read through them. Nothing is drawn from memory: everything is read anew."""

    record: Record = field(default_factory=Record)

    @classmethod
    def of(cls, services: Services) -> "Recording":
        """A recording beside the services of a server."""
        return cls(services.store, services.shelf, services.runner, services.desk, Memo(64 << 20))

    def open(self, run_id: str) -> RunResult | None:
        found = self.runner.open(run_id)
        if found is None:
            return None
        self.record.runs[run_id] = found

        def read(name: str) -> Tensor:
            tensor = found.tensor(name)
            owned = self.store.has_tensors(run_id, (name,))
            self.record.tensors.add((run_id if owned else found.info.capture_id, name))
            return tensor

        return dataclasses.replace(found, read_tensor=read)

    def decode(self, model: str, token_ids: Sequence[int], tokenizer: str | None = None) -> tuple[str, ...]:
        self.record.tokens.setdefault(model, set()).update(int(token) for token in token_ids)
        return super().decode(model, token_ids, tokenizer)


def make_item(panel: Panel, view: View, params: Mapping[str, Any], caption: str = "") -> Item:
    """A panel as it is now, as an item of a session, with the runs it was drawn from."""
    recording = Recording.of(view.services)
    own = recording.open(view.info.run_id)
    if own is not None:
        panel.draw(View(recording, own, view.selection, view.answers), params).table()
    others = sorted(set(recording.record.runs) - {view.info.run_id})
    return Item(
        panel.key, {"set": dict(params), "runs": others}, view.selection.as_dict(), caption, view.info.run_id
    )  # fmt: skip


def reads(services: Services, items: Iterable[Item]) -> Record:
    """Everything the items read to be drawn and to give their tables."""
    recording = Recording.of(services)
    for item in items:
        if item.run_id is None:
            continue
        view = item_view(recording, item)
        if view is None:
            continue
        try:
            found = registry.panel(item.view)
            found.draw(view, options(item)).table()
        except (BadRequest, StoreError):
            continue  # an item that cannot be drawn is carried as it is, and says why where it is opened
    return recording.record


def export(services: Services, session_id: str, out: BinaryIO) -> None:
    """Write a session as a bundle. Raises SessionAbsent, or BundleRefused where it would be too large."""
    session = services.store.session(session_id)
    if session is None:
        raise SessionAbsent(session_id)
    items = services.store.session_items(session_id)
    record = reads(services, items)
    runs = set(record.runs) | {run for item in items for run in _named(item) if services.store.run(run) is not None}
    tensors = {(owner, name) for owner, name in record.tensors if not name.startswith(_NEVER)}
    export_bundle(
        services.store, session_id, out, runs=sorted(runs), tensors=sorted(tensors),
        vocabulary=record.vocabulary(services),
    )  # fmt: skip


def _named(item: Item) -> list[str]:
    runs = item.params.get("runs", [])
    own = [] if item.run_id is None else [item.run_id]
    return [*own, *(str(run) for run in runs)] if isinstance(runs, list) else own
