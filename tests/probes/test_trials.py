"""Tests and their controls: what is taken away, what is drawn beside it, and that asking again is asking the same."""

import pytest

from probes.errors import BadRequest
from probes.model.edits import Mean, check_edit
from probes.model.loaded import ModelFacts
from probes.trials import KINDS, Background, Target, Trial, trials
from tests import tiny

N_TOKENS = 60
TARGETS = {
    "entry": Target("entry", 2, position=0, dim=5),
    "sink": Target("sink", 1, position=0),
    "key": Target("key", 1, position=0),
    "head": Target("head", 1, head=2),
    "block": Target("block", 1),
    "dimension": Target("dimension", 3, dim=5),
}
KNOWN = Background(frozenset({(0, 5), (0, 6), (7, 5)}), frozenset({0, 3}), 9)


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return tiny.loaded("llama").facts


def made(kind: str, facts: ModelFacts, how: str = "zero", known: Background = KNOWN) -> tuple[Trial, ...]:
    return trials(TARGETS[kind], how, facts, N_TOKENS, known)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_target_comes_first_every_edit_fits_and_controls_are_others(kind: str, how: str, facts: ModelFacts) -> None:
    passes = made(kind, facts, how)
    assert [trial.role for trial in passes].count("target") == 1
    assert passes[0].role == "target"
    assert sum(trial.role == "control" for trial in passes) >= 2
    assert len({trial.edits for trial in passes}) == len(passes), "no pass is made twice"
    assert len({trial.label for trial in passes}) == len(passes)
    for trial in passes:
        for edit in trial.edits:
            check_edit(edit, facts, N_TOKENS)
            assert isinstance(edit.source, Mean) == (how == "mean")


@pytest.mark.parametrize("kind", KINDS)
def test_asked_again_it_is_the_same_passes(kind: str, facts: ModelFacts) -> None:
    assert made(kind, facts) == made(kind, facts)


def test_controls_of_an_entry_avoid_massive_entries_and_include_the_largest_that_is_none(facts: ModelFacts) -> None:
    places = [(t.edits[0].positions, t.edits[0].dims) for t in made("entry", facts)]
    assert places[0] == ((0,), (5,))
    assert ((0,), (9,)) in places
    drawn = [(p[0], d[0]) for p, d in places[1:] if p and d]
    assert not set(drawn) & KNOWN.massive
    assert sum(at == 0 for at, _ in drawn) == 4
    assert sum(d == 5 for _, d in drawn) == 3


def test_the_largest_that_is_not_massive_is_no_random_control_too(facts: ModelFacts) -> None:
    drawn = {t.edits[0].dims for t in made("entry", facts, known=Background()) if t.label.startswith("same position")}
    for [dim] in drawn:
        passes = made("entry", facts, known=Background(runner_up=dim))
        assert len({trial.edits for trial in passes}) == len(passes)


def test_a_sink_is_masked_from_its_block_on_beside_keys_that_are_none(facts: ModelFacts) -> None:
    passes = made("sink", facts)
    assert [edit.layer for edit in passes[0].edits] == [1, 2], (
        "in every block it would be a text without its first token"
    )
    assert [t.role for t in passes[:3]] == ["target", "variant", "variant"]
    assert passes[1].edits[0].renormalise is False
    assert passes[2].edits[0].site == "value"
    keys = {edit.keys[0] for t in passes if t.role == "control" for edit in t.edits if edit.keys}
    assert len(keys) == 5
    assert not keys & KNOWN.sinks
    assert max(keys) <= N_TOKENS - 8, "seen by at least 8 queries"


def test_a_key_is_masked_in_its_block_alone_or_in_one_head_of_it(facts: ModelFacts) -> None:
    passes = made("key", facts)
    assert {(edit.layer, edit.heads) for t in passes for edit in t.edits} == {(1, None)}
    in_head = trials(Target("key", 2, position=0, head=3), "zero", facts, N_TOKENS, KNOWN)
    assert {(edit.site, edit.layer, edit.heads) for t in in_head for edit in t.edits} == {("pattern", 2, (3,))}
    assert [t.role for t in in_head[:2]] == ["target", "variant"]


def test_a_block_has_its_parts_beside_it(facts: ModelFacts) -> None:
    sites = [[edit.site for edit in trial.edits] for trial in made("block", facts)]
    assert sites[:3] == [["attn_out", "mlp_out"], ["attn_out"], ["mlp_out"]]


def test_a_dimension_is_tested_without_position_0_too(facts: ModelFacts) -> None:
    variant = made("dimension", facts)[1]
    assert variant.edits[0].positions == tuple(range(1, N_TOKENS))


def test_a_small_model_has_fewer_controls() -> None:
    facts = tiny.loaded("llama", num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1).facts
    assert [t.role for t in trials(Target("head", 0, head=0), "zero", facts, 20, Background())] == ["target"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "neuron", "layer": 0}, "one of entry"),
        ({"kind": "entry", "layer": 0, "position": 1}, "dim is missing"),
        ({"kind": "head", "layer": 0}, "head is missing"),
        ({"kind": "block", "layer": -1}, "layer is missing"),
    ],
)
def test_a_place_that_is_not_whole_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Target(**given)  # type: ignore[arg-type]


def test_a_way_that_is_not_known_is_refused(facts: ModelFacts) -> None:
    with pytest.raises(BadRequest, match="to zero or to the mean"):
        made("block", facts, "half")
