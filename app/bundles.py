"""What the items of a session read, and a session as a bundle that carries just that. No streamlit."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from torch import Tensor

from app.items import item_view, options
from app.panels import registry
from app.panels.panel import Panel
from app.services import Memo, Services
from app.view import View
from cache import Store
from cache.bundle_format import Bundle, BundleRefused, ImportedSession
from cache.bundle_import import import_bundle
from cache.bundle_write import export_bundle
from cache.errors import SessionAbsent, StoreError
from cache.session_rules import Item
from probes.checks import whole
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.request import RunRequest
from probes.runner import RunResult

__all__ = ["Record", "Recording", "admit", "check_runs", "export", "make_item", "reads"]

log = logging.getLogger(__name__)

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
        except (
            Exception
        ) as problem:  # it is carried as it is, and says why where it is opened; it came with a file, perhaps
            if not isinstance(problem, BadRequest | StoreError):
                log.exception("the item %r could not be drawn", item.view)
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


def admit(store: Store, bundle: Bundle) -> ImportedSession:
    """Store a bundle whose runs this program can open. Raises BundleRefused before anything is written, or a StoreError."""
    check_runs(bundle)
    return import_bundle(store, bundle)


def check_runs(bundle: Bundle) -> None:
    """Raises BundleRefused for a run that could not be opened: a request, a model or a text that cannot be meant."""
    captures = {row["capture_id"]: json.loads(row["facts"]) for row in bundle.tables["captures"].to_pylist()}
    texts: dict[str, list[tuple[int, int]]] = {}
    columns = (bundle.tables["tokens"][name].to_pylist() for name in ("capture_id", "pos", "token_id"))
    for capture, position, token in zip(*columns, strict=True):
        texts.setdefault(capture, []).append((position, token))
    for row in bundle.tables["runs"].select(["run_id", "capture_id", "n_tokens", "request"]).to_pylist():
        told = f"The run {row['run_id'][:8]} of the bundle"
        try:
            request = RunRequest.from_stored(json.loads(row["request"]))
            facts = ModelFacts.from_stored(captures[row["capture_id"]])
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            reason = str(problem) if isinstance(problem, BadRequest) else "it is not of the form this program writes."
            raise BundleRefused(f"{told} cannot be opened: {reason}") from None
        named = (
            request.model,
            request.device,
            facts.name,
            facts.fingerprint,
            facts.tokenizer,
            facts.weights,
            facts.device,
        )
        sizes = (
            facts.n_layers,
            facts.d_model,
            facts.n_heads,
            facts.n_kv_heads,
            facts.d_head,
            facts.d_vocab,
            facts.context,
        )
        if not all(isinstance(text, str) for text in named) or not all(whole(size) and size > 0 for size in sizes):
            raise BundleRefused(f"{told} cannot be opened: it does not say which model it is of.")
        tokens = texts.get(row["capture_id"], [])
        if (
            dict(tokens) != dict(enumerate(request.token_ids))
            or not len(tokens) == len(request.token_ids) == row["n_tokens"]
        ):
            raise BundleRefused(f"{told} cannot be opened: its request is about another text than its tokens.")


def _named(item: Item) -> list[str]:
    runs = item.params.get("runs", [])
    own = [] if item.run_id is None else [item.run_id]
    return [*own, *(str(run) for run in runs)] if isinstance(runs, list) else own
