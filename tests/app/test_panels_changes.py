"""Panels of SAE latents, interventions, tests and the story, drawn without a page or a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from app.panels.interventions import MEASURES, TO, heads_call
from app.panels.latents import effect_call, latents_call
from app.panels.panel import Click
from app.panels.story import HEADS, birth_of
from app.panels.test import as_target, plan, read_target
from app.selection import Selection
from app.story import make_plan
from app.trial import EFFECTS, Test
from app.view import View
from probes.errors import BadRequest
from probes.saes.folder import InstalledSAE
from probes.trials import HOW, KINDS, Target
from tests.app.fakes import LAYERS, fake_result, fake_services
from tests.app.rich_run import SELECTIONS, TOKENS, draw, head_table, put, rich, seen, whole
from tests.app.test_latents_page import INFO

LATENTS = ("latents-by-token", "latents-map", "latents-token", "latents-latent", "latents-effect")
TESTS = ("test-perplexity", "test-sinks", "test-along")
STORY = ("birth", "writers", "sinks", "damage", "masked", "traces", "alpha", "heads")
TARGETS: dict[str, dict[str, Any]] = {
    "entry": {"kind": "entry", "layer": 3, "position": 0, "dim": 7},
    "sink": {"kind": "sink", "layer": 2, "position": 0},
    "key": {"kind": "key", "layer": 2, "position": 4, "head": 1},
    "head": {"kind": "head", "layer": 2, "head": 1},
    "block": {"kind": "block", "layer": 0},
    "dimension": {"kind": "dimension", "layer": 6, "dim": 9},
}


def passed(view: View, test: Test) -> None:
    """Store the answers of a test: pass i costs i nats more at position p, and i plus p hundredths of KL."""
    count = len(view.tokens)
    for index, request in enumerate(test.requests, start=1):
        at = np.arange(count)
        values = {"nll_clean": np.full(count, 1.0), "nll": 1.0 + index + 0 * at}
        values |= {name: index + at / 100 for name in EFFECTS if name != "nll"}
        rows = [pd.DataFrame({"layer": pd.NA, "pos": at, "metric": name, "value": v}) for name, v in values.items()]
        whole = {"perplexity": 10.0 * index, "perplexity_clean": 9.0, "sink_share_on": 0.5, "sink_share_on_clean": 0.6}
        layers = [(pd.NA, name, value) for name, value in {**whole, "effect_kl": 0.25, "effect_flip": 0.5}.items()]
        layers += [(point, "sink_share", 0.1 * index) for point in range(1, LAYERS + 1)]
        tables = {
            "token_metrics": pd.concat(rows, ignore_index=True),
            "layer_metrics": pd.DataFrame(layers, columns=["layer", "metric", "value"]),
        }
        put(view, request, tables=tables)


@pytest.fixture(autouse=True)
def sae(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "app.panels.latents.installed_saes", lambda: (InstalledSAE(INFO.name, INFO.folder, INFO, None),)
    )


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("key", LATENTS)
def test_latents_are_drawn_of_the_run_and_of_another_sae(key: str, selection: Selection) -> None:
    view = seen(rich(), selection)
    tables = {**view.result.tables, "latents": view.table("latents").assign(sae="other")}
    other = put(view, view.info.request.with_probes(latents_call("other")), tables=tables, tensors=view.result.tensors)
    for read in (view, view.beside(other)):
        tensors = {
            "effect_ids": torch.arange(20).reshape(2, 10),
            "effect_values": torch.linspace(1, -1, 20).reshape(2, 10),
            "effect_shape": torch.tensor([0.5, 2.25]),
        }
        name, latent = str(read.table("latents")["sae"].iloc[0]), effect_call(view).params["latent"]
        call = replace(effect_call(view), params={"sae": name, "latent": latent})
        put(read, read.info.request.with_probes(call), tensors=tensors)
    for options in ({}, {"sae": "other"}, {"sae": "fake-sae"}):
        drawn = draw(view, key, **options)
        whole(view, drawn, clickable=key != "latents-effect")
        assert "The store has dropped" not in str(drawn.note)
    assert draw(view, key, sae="third").note == "This was not asked of the run yet (latents)."


def test_the_table_of_a_latent_is_that_of_the_store() -> None:
    view = seen(rich(), Selection(3, 9, latent=None))
    latent = int(view.table("latents").query("pos == 9").nlargest(1, "activation")["latent"].iloc[0])
    drawn = draw(view, "latents-latent")
    assert drawn.title == f"Latent {latent}"
    pd.testing.assert_frame_equal(drawn.table(), view.table("latents").query("latent == @latent"))


def test_what_a_latent_cannot_say_is_told_under_its_name() -> None:
    view = seen(rich(), Selection(3, 9, latent=999))
    drawn = draw(view, "latents-effect")
    assert (drawn.title, drawn.note) == ("Direct effect of latent 999", "It has no such latent.")
    dropped = seen(rich(), SELECTIONS[0])
    put(dropped, dropped.info.request.with_probes(effect_call(dropped)))
    assert str(draw(dropped, "latents-effect").note).startswith("This was computed once")


def test_without_its_mask_a_panel_says_what_it_sets_apart() -> None:
    shown = rich()
    shown.tensors.clear()
    for key in ("latents-by-token", "latents-map", "latents-latent"):
        drawn = draw(seen(shown), key)
        assert drawn.fig is not None
        assert "only position 0 is set apart" in str(drawn.note)


@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("metric", MEASURES)
def test_every_head_in_turn(to: str, metric: str) -> None:
    view = seen(rich())
    asked = draw(view, "interventions-heads", to=to, metric=metric)
    assert asked.note == "24 passes, each from its block on: about 12 whole passes of this text."
    put(view, view.info.request.with_probes(heads_call(to)), tables=head_table())
    drawn = draw(view, "interventions-heads", to=to, metric=metric)
    whole(view, drawn)
    assert drawn.note == "Largest: head 5.3, 2.300 nats over 49 predictions."
    assert drawn.picked(Click(3, 5)) == {"head": 3, "point": 6}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_a_test_is_drawn_once_every_pass_is_stored(kind: str, how: Any) -> None:
    view, target = seen(rich()), TARGETS[kind]
    test = plan(view, *read_target(target)[:1], how)
    for key in TESTS:
        assert "passes of this test" in str(draw(view, key, target=target, how=how).note)
    passed(view, test)
    for selection in SELECTIONS:
        there = replace(view, selection=selection)
        for key in TESTS:
            whole(there, draw(there, key, target=target, how=how))
        for measure in EFFECTS:
            drawn = draw(there, "test-along", target=target, how=how, measure=measure)
            values = drawn.table()[test.trials[-1].label]
            expected = len(test.trials) + (0 if measure == "nll" else 0.04)
            assert values[4] == pytest.approx(expected)
    costs = draw(view, "test-perplexity", target=target, how=how).table()
    assert costs["perplexity"].tolist() == [9.0, *(10.0 * i for i in range(1, len(test.trials) + 1))]
    shares = draw(view, "test-sinks", target=target, how=how).table()
    assert shares.query("role == 'target'")["value"].tolist() == pytest.approx([0.1] * LAYERS)


def test_the_row_of_a_pass_selects_what_it_changes() -> None:
    view = seen(rich())
    places = {
        "entry": {"point": 3, "position": 0, "dimension": 7},
        "key": {"point": 3, "position": 4, "head": 1},
        "head": {"point": 3, "head": 1},
        "block": {"point": 1},
        "dimension": {"point": 6, "dimension": 9},
    }
    for kind, place in places.items():
        passed(view, plan(view, read_target(TARGETS[kind])[0], "zero"))
        drawn = draw(view, "test-perplexity", target=TARGETS[kind])
        assert drawn.picked(Click(9.0, 0)) == {}, "the clean run changes nothing"
        assert drawn.picked(Click(10.0, 1)) == place


def test_a_kept_test_of_an_entry_needs_no_states() -> None:
    shown = rich()
    view = seen(shown)
    test = plan(view, read_target(TARGETS["entry"])[0], "zero")
    assert test.runner_up is not None
    passed(view, test)
    for name in [name for name in shown.tensors if name.startswith("resid.")]:
        del shown.tensors[name]
    later = View(fake_services(shown), shown, view.selection, tuple(test.run_ids))
    later.services.runner.results.update(view.services.runner.results)  # type: ignore[attr-defined]
    assert "no longer kept" in str(draw(later, "test-perplexity", target=TARGETS["entry"]).note)
    whole(later, draw(later, "test-perplexity", target=as_target(test)))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"kind": "soul", "layer": 1}, "A test is of one of"),
        ({"kind": ["head"], "layer": 1}, "A test is of one of"),
        ({"kind": "head", "layer": 1}, "head is missing"),
        ({"kind": "block", "layer": -1}, "layer of a target must be a whole number"),
        ({"kind": "block", "layer": 1, "why": 2}, "A target has no 'why'"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(target: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        draw(seen(rich()), "test-along", target=target)


def test_a_target_this_run_does_not_have_is_a_gap() -> None:
    view = seen(rich())
    assert "layer of a test lies in" in str(draw(view, "test-along", target={"kind": "block", "layer": 99}).note)
    assert "No test was asked for" in str(draw(view, "test-along").note)
    bare = rich()
    bare.tables.clear()
    assert "did not ask for sinks" in str(draw(seen(bare), "test-sinks", target=TARGETS["sink"]).note)


def told(view: View) -> View:
    """A view of the story, all of whose passes are stored."""
    refused = BadRequest("no variation here")

    def varied(*_: Any) -> Any:
        raise refused

    view.services.varied = varied  # type: ignore[method-assign]
    story = make_plan(view.services, view.result, birth_of(view))
    for test in (*story.tests, *filter(None, (story.sink,))):
        passed(view, test)
    for trace in story.traces:
        rows = [(0, point, float(point) + 1) for point in range(LAYERS + 1)]
        put(view, trace.request, tables={"token_metrics": pd.DataFrame(rows, columns=["pos", "layer", "value"])})
    put(view, view.info.request.with_probes(HEADS), tables=head_table())
    return view


@pytest.mark.parametrize("name", STORY)
def test_every_panel_of_the_story_is_drawn(name: str) -> None:
    view = told(seen(rich()))
    for selection in SELECTIONS:
        there = replace(view, selection=selection)
        whole(there, draw(there, f"story-{name}"))


def test_the_story_is_drawn_without_states_where_its_tests_are_known() -> None:
    shown = rich()
    view = told(seen(shown))
    tests = make_plan(view.services, view.result, birth_of(view)).tests
    runners = [test.runner_up for test in tests if test.runner_up is not None]
    for name in [name for name in shown.tensors if name.startswith("resid.")]:
        del shown.tensors[name]
    later = seen(shown)
    later.services.runner.results.update(view.services.runner.results)  # type: ignore[attr-defined]
    assert "no longer kept" in str(draw(later, "story-damage").note)
    drawn = draw(later, "story-damage", runners=runners)
    whole(later, drawn)
    assert drawn.picked(Click(10.0, 1)) == {"point": 3, "position": 0, "dimension": 7}
    assert drawn.table()["perplexity"].iloc[0] == 9.0
    for wrong in (["a"], [1] * (len(runners) + 1)):
        with pytest.raises(BadRequest, match="runners must be"):
            draw(later, "story-damage", runners=wrong)


def test_a_story_whose_passes_are_missing_says_so() -> None:
    view = seen(rich())
    view.services.varied = told(seen(rich())).services.varied  # type: ignore[method-assign]
    for name in ("damage", "masked"):
        assert "passes of this test" in str(draw(view, f"story-{name}").note)
    assert draw(view, "story-traces").note == "Not every pass of the story is stored: its page runs them."
    assert draw(view, "story-heads").note == "This was not asked of the run yet (head_effects)."


@pytest.mark.parametrize("selection", SELECTIONS[:2], ids=str)
def test_a_run_without_tables_gives_a_note(selection: Selection) -> None:
    bare = fake_result(TOKENS)
    bare.tables.clear()
    view = seen(bare, selection)
    for key in (*LATENTS, "interventions-heads", *TESTS, *(f"story-{name}" for name in STORY)):
        for options in ({}, {"target": TARGETS["block"]}) if key in TESTS else ({},):
            drawn = draw(view, key, **options)
            assert drawn.fig is None, key
            assert drawn.note, key
            assert drawn.title, key


def test_every_target_a_page_offers_is_an_option_and_back() -> None:
    view = seen(rich())
    for kind, given in TARGETS.items():
        test = plan(view, read_target(given)[0], "zero")
        assert as_target(test).items() >= given.items(), kind
        assert read_target(as_target(test)) == (Target(**given), test.runner_up)
