"""The registry of claims, and running them on a tiny random model: kept outcomes, the control, what cannot be tested."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cache.store import Store
from probes.claims import running
from probes.claims.alpha_groups import shortest
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable
from probes.claims.registry import MODULES, claims, collect, find_claim
from probes.claims.running import Ask, kept_findings, run_claims
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.progress import Cancelled, Progress
from probes.prompts.library import import_set
from probes.prompts.sets import PromptSet, read_set
from probes.request import DEFAULT_PROBES, RunRequest
from probes.runner import Runner
from probes.set_sweep import SetAsk
from tests import tiny

WORDS = ["river", "mill", "bed", "bank", "stone", "rain", "field", "bridge", "boat", "mud", "reed", "otter"]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama", num_hidden_layers=5)


@pytest.fixture
def shelf(model: LoadedModel) -> Shelf:
    made = Shelf()
    made.put(model)
    return made


def small_set(store: Store, name: str = "small", n: int = 8, repeat: int = 1) -> PromptSet:
    """Prompts of one length in two groups, each with an answer, that begin differently."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        text = " ".join(f"{rng.choice(WORDS):6}." for _ in range(8 * repeat))
        rows.append(
            {"id": f"p{i}", "text": f"{chr(65 + i)} {text}", "group": ["reasoning", "factual"][i % 2], "answer": "mill"}
        )
    made = read_set(name, "".join(json.dumps(row) + "\n" for row in rows).encode(), "a file", "a file")
    import_set(store, made)
    return made


def bench(runner: Runner, shelf: Shelf, prompts: PromptSet, model: LoadedModel, **changes: object) -> Bench:
    made = Bench(runner, shelf, model.facts.name, prompts, Progress())
    return replace(made, **changes)


def test_every_module_is_a_claim_of_its_own() -> None:
    names = [claim.name for claim in claims()]
    assert len(set(names)) == len(MODULES) == len(names)
    for claim in claims():
        words = (claim.title, claim.paper, claim.reported, claim.tested, claim.rule, claim.distrust)
        assert all(words)
        assert claim.prompts in ("factual-reasoning", "idioms", "passages")
        assert "Holds if" in claim.rule
    with pytest.raises(BadRequest, match="There is no claim 'nothing'; there are reasoning-alpha, "):
        find_claim("nothing")
    twice = SimpleNamespace(claim=claims()[0], test=len)
    with pytest.raises(ValueError, match="Two claims are called 'reasoning-alpha'"):
        collect([twice, twice])


def test_a_claim_is_tested_once_and_kept(model: LoadedModel, store: Store, shelf: Shelf, runner: Runner) -> None:
    small_set(store)
    ask = Ask(("reasoning-alpha", "mlp-origin"), model.facts.name, "small")
    said: list[str] = []
    first = run_claims(runner, shelf, ask, Progress(), lambda one: said.append(one.claim.name))
    assert said == ["reasoning-alpha", "mlp-origin"]
    alpha, origin = (one.outcome for one in first)
    assert alpha.verdict in ("holds", "does not hold")
    assert alpha.n == 8
    assert None not in (alpha.effect, alpha.low, alpha.high, alpha.control)
    assert len(alpha.details) == 6
    assert origin.verdict == "cannot be tested here"
    assert "becomes massive" in origin.reason
    again = run_claims(runner, shelf, ask, Progress())
    assert again[0].outcome == alpha
    kept = kept_findings(store, model.facts, "small")
    assert kept["reasoning-alpha"].outcome == alpha
    assert kept["reasoning-alpha"].created is not None
    assert list(kept) == ["reasoning-alpha", "mlp-origin"]
    assert kept_findings(store, model.facts, "small", shuffled=True) == {}


def test_another_version_seed_or_control_is_another_outcome(
    model: LoadedModel, store: Store, shelf: Shelf, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = small_set(store)
    claim, calls = replace(claims()[0], name="mine", prompts="small", shuffles="labels"), []

    def test(given: Bench) -> Outcome:
        calls.append(given.seed)
        return Outcome("holds", "why", float(len(calls)))

    one = SimpleNamespace(claim=claim, test=test)
    monkeypatch.setattr(running, "find_claim", lambda _: one)
    monkeypatch.setattr(running, "claims", lambda: (one.claim,))
    ask = Ask(("mine",), model.facts.name)
    for changed in (ask, ask, replace(ask, seed=1), replace(ask, shuffled=True), replace(ask, others=("x",))):
        run_claims(runner, shelf, changed, Progress())
    assert len(calls) == 4
    kept = kept_findings(store, model.facts, "small")["mine"]
    assert (kept.prompts, kept.seed) == (prompts.name, 0)
    assert kept_findings(store, model.facts, "small", seed=1)["mine"].outcome.effect == 2.0
    one.claim = replace(claim, version=2)
    assert kept_findings(store, model.facts, "small") == {}
    run_claims(runner, shelf, ask, Progress())
    assert len(calls) == 5


def test_what_is_left_of_a_stopped_run_is_done_later(
    model: LoadedModel, store: Store, shelf: Shelf, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_set(store)
    calls: list[str] = []

    def planted(name: str) -> SimpleNamespace:
        def test(given: Bench) -> Outcome:
            given.told(0, 1, "nothing of")
            calls.append(name)
            return Outcome("does not hold", "why")

        return SimpleNamespace(claim=replace(claims()[0], name=name, prompts="small"), test=test)

    monkeypatch.setattr(running, "find_claim", planted)
    ask = Ask(("one", "two"), model.facts.name)
    with pytest.raises(Cancelled):
        run_claims(runner, shelf, ask, Progress(cancelled=lambda: bool(calls)))
    assert calls == ["one"]
    assert [one.claim.name for one in run_claims(runner, shelf, ask, Progress())] == ["one", "two"]
    assert calls == ["one", "two"]


def test_shuffled_labels_are_other_labels(model: LoadedModel, store: Store, shelf: Shelf, runner: Runner) -> None:
    made = bench(runner, shelf, small_set(store), model)
    groups = ["a", "b"] * 10
    assert made.paired(groups) == groups
    shuffled = replace(made, shuffled=True)
    assert shuffled.paired(groups) != groups
    assert sorted(shuffled.paired(groups)) == sorted(groups)
    assert shuffled.paired(groups) == replace(made, shuffled=True).paired(groups)
    with pytest.raises(BadRequest, match="The claim scaling pairs nothing"):
        Ask(("scaling",), model.facts.name, shuffled=True)
    with pytest.raises(BadRequest, match="seed must be 0 or more"):
        Ask(("scaling",), model.facts.name, seed=-1)


def test_every_claim_says_something_on_a_small_set(
    model: LoadedModel, store: Store, shelf: Shelf, runner: Runner
) -> None:
    """No test breaks on a random model: it gives an outcome, or the reason why it cannot."""
    small_set(store, n=6, repeat=2)
    found = run_claims(
        runner, shelf, Ask(tuple(claim.name for claim in claims()), model.facts.name, "small"), Progress()
    )
    by_name = {one.claim.name: one.outcome for one in found}
    assert all(outcome.reason.endswith(".") for outcome in by_name.values())
    json.dumps([one.as_document() for one in found], allow_nan=False)
    reasons = {
        "reversal": "It takes a pair of base and instruct model",
        "scaling": "1 is at hand",
        "correctness": "6 prompts of small have an answer",
        "dimension-loss": "it takes 30",
        "fixed-dimensions": "have a massive activation",
        "idiom-convergence": "it takes 10 right",
    }
    for name, reason in reasons.items():
        assert by_name[name].verdict == "cannot be tested here"
        assert reason in by_name[name].reason
    for name in ("cascade", "punctuation", "shuffled-dimension", "response-shift"):
        assert by_name[name].verdict in ("holds", "does not hold"), by_name[name].reason
        assert by_name[name].effect is not None or name == "cascade"


def test_runs_of_whole_pages_serve_claims_too(model: LoadedModel, store: Store, shelf: Shelf, runner: Runner) -> None:
    made = bench(runner, shelf, small_set(store, n=3), model)
    page = SetAsk(made.prompts, RunRequest(model.facts.name, (0,), DEFAULT_PROBES)).request(
        made.prompts.prompts[1], model
    )
    whole = runner.run(page).info.run_id
    items = made.items()
    assert [item.prompt.id for item in items] == ["p0", "p1", "p2"]
    assert [item.run_id == whole for item in items] == [False, True, False]
    assert len(store.runs()) == 3
    assert made.items(bos=False)[1].run_id != whole


def test_a_set_without_the_groups_says_so(model: LoadedModel, store: Store, shelf: Shelf, runner: Runner) -> None:
    bare = read_set("bare", b'{"id": "a", "text": "The river bed"}\n', "a file", "a file")
    import_set(store, bare)
    [found] = run_claims(runner, shelf, Ask(("reasoning-alpha",), model.facts.name, "bare"), Progress())
    assert found.outcome.verdict == "cannot be tested here"
    assert "0 prompts of the group reasoning" in found.outcome.reason
    with pytest.raises(Untestable, match="no prompt of the groups reasoning and factual"):
        shortest(bench(runner, shelf, bare, model))


def test_a_claim_is_plain_data() -> None:
    assert isinstance(claims()[0], Claim)
    with pytest.raises(AttributeError):
        claims()[0].name = "other"  # type: ignore[misc]
