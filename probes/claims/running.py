"""Running claims and keeping what came of it: an outcome is computed once for a model, a set and a version of its test."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cache.keys import digest
from cache.store import Store
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable
from probes.claims.registry import claims, find_claim
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.prompts.library import all_sets, find_set
from probes.request import library_versions
from probes.runner import Runner

__all__ = ["Ask", "Finding", "kept_findings", "run_claims"]

_KIND = "claim"
_FORMAT = 2  # of a kept document


@dataclass(frozen=True)
class Ask:
    """Which claims, of which model. ``prompts`` names a set in place of each claim's own, ``others`` the models that
    claims about several may use.

    Raises BadRequest for a claim there is none of, a negative seed and, where ``shuffled``, a claim that pairs nothing.
    """

    names: tuple[str, ...]
    model: str
    prompts: str | None = None
    others: tuple[str, ...] = ()
    seed: int = 0
    shuffled: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadRequest(f"The seed must be 0 or more, not {self.seed}.")
        for name in self.names:
            if find_claim(name).claim.shuffles is None and self.shuffled:
                raise BadRequest(f"The claim {name} pairs nothing, so there is nothing to shuffle.")


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim with what came of its test, on which model and set; ``created`` is when it was kept, None if it is new."""

    claim: Claim
    outcome: Outcome
    model: str
    prompts: str
    set_id: str
    shuffled: bool
    seed: int
    seconds: float
    created: pd.Timestamp | None = None

    def as_document(self) -> dict[str, Any]:
        """Words of the claim and numbers of the outcome, as plain values."""
        of_claim = ("name", "title", "paper", "reported", "tested", "rule", "version")
        words = {name: getattr(self.claim, name) for name in of_claim}
        about = {
            "model": self.model,
            "prompts": self.prompts,
            "set_id": self.set_id,
            "shuffled": self.shuffled,
            "seed": self.seed,
            "seconds": self.seconds,
        }
        return words | about | self.outcome.as_document()


def run_claims(
    runner: Runner, shelf: Shelf, ask: Ask, progress: Progress, said: Callable[[Finding], None] = lambda _: None
) -> list[Finding]:
    """Test claims one after the other. What is kept is only read; what is new is kept as soon as it is known.

    Raises BadRequest, ModelRefused, Cancelled and what a sweep raises.
    """
    facts = shelf.get(ask.model, progress=progress.part(0.0, 0.02)).facts
    memo: dict[Hashable, Any] = {}
    found = []
    for place, name in enumerate(ask.names):
        start, end = (0.02 + 0.98 * (place + step) / len(ask.names) for step in (0, 1))
        part, tested = progress.part(start, end), find_claim(name)
        prompts = find_set(runner.store, ask.prompts or tested.claim.prompts)
        content = _content(tested.claim, prompts.set_id, ask)
        kept = _kept(runner.store, tested.claim, content, facts)
        if kept is None or kept.outcome.verdict == "cannot be tested here":  # what was missing may be there now
            told = Progress(_titled(part, tested.claim.title))
            bench = Bench(runner, shelf, ask.model, prompts, told, ask.others, ask.seed, ask.shuffled, memo=memo)
            started = time.perf_counter()
            try:
                outcome = tested.test(bench)
            except Untestable as why:
                outcome = Outcome("cannot be tested here", str(why))
            seconds = round(time.perf_counter() - started, 1)
            kept = Finding(
                tested.claim, outcome, ask.model, prompts.name, prompts.set_id, ask.shuffled, ask.seed, seconds
            )
            _keep(runner.store, kept, content, facts)
        found.append(kept)
        said(kept)
    return found


def kept_findings(
    store: Store, facts: ModelFacts, prompts: str | None = None, *, shuffled: bool = False, seed: int = 0
) -> dict[str, Finding]:
    """The newest finding of each claim on a model by the claim's name, on a set or on each claim's own; tests of an older
    version or with another seed are left out."""
    rows = store.answers(_KIND, facts.fingerprint)
    sets = {one.name: one.set_id for one in all_sets(store)}  # a name may have come to stand for another set
    found: dict[str, Finding] = {}
    for claim in claims():
        for row in rows[rows["about"] == claim.name].itertuples(index=False):
            document = store.answer(_KIND, row.content, claim.name, facts.fingerprint)
            wanted = (sets.get(prompts or claim.prompts), shuffled, seed, claim.version)
            if document and tuple(document.get(name) for name in ("set_id", "shuffled", "seed", "version")) == wanted:
                found[claim.name] = _read(claim, document, row.created)
                break
    return found


def _content(claim: Claim, set_id: str, ask: Ask) -> str:
    """What an outcome depends on besides the weights."""
    return digest(
        {
            "claim": claim.name,
            "format": _FORMAT,
            "version": claim.version,
            "prompts": set_id,
            "others": sorted(ask.others),
            "seed": ask.seed,
            "shuffled": ask.shuffled,
            "versions": library_versions(),
        }
    )


def _kept(store: Store, claim: Claim, content: str, facts: ModelFacts) -> Finding | None:
    document = store.answer(_KIND, content, claim.name, facts.fingerprint)
    return None if document is None else _read(claim, document, None)


def _keep(store: Store, finding: Finding, content: str, facts: ModelFacts) -> None:
    store.put_answer(_KIND, content, finding.claim.name, facts.fingerprint, finding.as_document())


def _read(claim: Claim, document: Mapping[str, Any], created: pd.Timestamp | None) -> Finding:
    about = {name: document[name] for name in ("model", "prompts", "set_id", "shuffled", "seed", "seconds")}
    return Finding(claim, Outcome.from_document(document), created=created, **about)


def _titled(part: Progress, title: str) -> Callable[[float, str], None]:
    return lambda fraction, what: part.step(fraction, f"{title}: {what}")
