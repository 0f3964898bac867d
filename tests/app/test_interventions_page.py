"""Does it matter, and what if: tests, own edits and every head in turn, on real runs of tiny models."""

import json
from collections.abc import Iterator

import pandas as pd
import pytest

from app.components import test_answer
from app.services import Ask, Services
from probes.request import ProbeCall
from probes.runner import RunResult
from tests import tiny
from tests.app.fakes import told
from tests.app.real_runs import Open, answered, headline, opener, panels, press, ran, services_over, settled

PLACE = {"point": "2", "pos": "5"}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services_over(tmp_path_factory.mktemp("interventions")) as made:
        yield made


@pytest.fixture(scope="module")
def clean(held: Services) -> RunResult:
    return ran(held, tiny.TEXT)


@pytest.fixture
def opened(held: Services) -> Iterator[Open]:
    with opener(held) as open_page:
        yield open_page


def test_a_test_draws_its_headline_and_figures_and_close_takes_them_away(
    held: Services, opened: Open, clean: RunResult
) -> None:
    app = opened("interventions", clean, **PLACE, head="1")
    assert not headline(app)
    app.button(key="test-head-zero").click().run()
    app = settled(app, held)
    assert "**Test: head 1\\.1 set to zero**" in told(app)
    [said] = headline(app)
    perplexity = clean.table("token_metrics").query("metric == 'nll'")["value"].astype(float)
    assert f"Perplexity **{2.718281828459045 ** perplexity.mean():.4g} → " in said
    assert "; 6 controls " in said
    assert "the positions" in said
    assert {"test-perplexity", "test-along"} <= panels(app)
    before, after = app.dataframe[0].value["before"], app.dataframe[0].value["after"]
    assert len(before) == len(after) == 5
    assert "Likely next tokens at position 5" in told(app)
    app.button(key="test-close").click().run()
    assert not headline(app)
    assert "test-perplexity" not in panels(app)


def test_the_test_of_one_run_is_not_shown_on_another(held: Services, opened: Open, clean: RunResult) -> None:
    app = opened("interventions", clean, **PLACE)
    app.button(key="test-block-zero").click().run()
    assert headline(settled(app, held))
    second = ran(held, "Another text, of which nothing was asked as yet.")
    app.query_params["run"] = second.info.run_id
    app.run()
    assert not app.exception
    assert not headline(app)


def test_a_link_to_a_test_shows_what_is_stored_and_runs_nothing_by_itself(
    held: Services, opened: Open, clean: RunResult
) -> None:
    target = {"kind": "dimension", "layer": 2, "dim": 5}
    link = {"panel": "test-along", "set": json.dumps({"target": target, "how": "mean", "measure": "effect_kl"})}
    app = opened("interventions", clean, **PLACE, **link)
    assert "**Test: dimension 5, all positions at point 2 set to its mean**" in told(app).replace("\\", "")
    assert not held.desk.active()
    app.button(key="test-run").click().run()
    app = settled(app, held)
    assert headline(app)
    assert app.segmented_control(key="test-measure").value == "effect_kl"
    app = opened("interventions", clean, **PLACE, **link)
    assert headline(app), "stored by now"
    wrong = opened("interventions", clean, **PLACE, panel="test-along", set='{"target": {"kind": "soul", "layer": 0}}')
    assert "A test is of one of" in wrong.warning[0].value


def test_controls_are_told_by_their_ends_and_one_by_itself() -> None:
    values = {"effect_kl": 0.25, "effect_flip": 0.5, "sink_share_on": pd.NA}
    rows = [("clean", 30.0), ("target", 2500.0), ("control", 31.0), ("control", 33.0)]
    table = pd.DataFrame([{"role": role, "perplexity": value, **values} for role, value in rows])
    assert test_answer._headline(table) == (
        "Perplexity **30 → 2,500**; 2 controls 31 to 33. KL 0.25 nats, another likeliest token at 50% of the positions."
    )
    assert "; 1 control 31. KL" in test_answer._headline(table.iloc[:3])
    assert "**30 → 2,500**. KL" in test_answer._headline(table.iloc[:2])
    assert "**30 → undefined**" in test_answer._headline(table.assign(perplexity=[30, None, 31, 33]))


def test_what_cannot_run_is_one_sentence_and_can_be_tried_again(
    held: Services, opened: Open, clean: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened("interventions", clean, point="1", pos="3")
    with monkeypatch.context() as broken:
        broken.setattr(held.runner, "run", failing)
        app.button(key="test-block-zero").click().run()
        app = settled(app, held)
    assert not app.exception
    assert "broken \\*\\*on purpose\\*\\*" in app.warning[0].value
    app.button(key="test-again").click().run()
    assert headline(settled(app, held))


def failing(*_: object) -> None:
    raise OSError("broken **on purpose**")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("**no** JSON", "An edit is JSON such as"),
        ("[]", "the list of edits is empty"),
        ('{"site": "resid", "layer": 4, "op": "set", "source": "zero"}', "is a point from 0 to 3 here, not 4"),
        (
            '{"site": "resid", "layer": 1, "positions": [9999], "op": "set", "source": "zero"}',
            "positions of resid lie in 0..",
        ),
        ('{"site": "head_z", "layer": 0, "heads": [4], "op": "set", "source": "zero"}', "heads of head_z lie in 0..3"),
        ('{"site": "soul", "layer": 0, "op": "set", "source": "zero"}', "soul"),
    ],
)
@pytest.mark.parametrize("button", ["Run with every view", "Continue the text"])
def test_an_edit_that_cannot_be_is_one_sentence_and_runs_nothing(
    held: Services, opened: Open, clean: RunResult, monkeypatch: pytest.MonkeyPatch, text: str, says: str, button: str
) -> None:
    app = opened("interventions", clean, **PLACE)
    monkeypatch.setattr(held.runner, "run", lambda *_: pytest.fail("nothing may run"))
    stored = len(held.recent())
    app.text_area(key="interventions-json").input(text)
    press(app, button)
    [error] = app.error
    assert says in error.value.replace("\\", "")
    assert not held.desk.active()
    assert len(held.recent()) == stored
    assert app.text_area(key="interventions-json").value == text, "what was typed stays"


def test_an_own_edit_runs_and_tells_what_it_cost(held: Services, opened: Open, clean: RunResult) -> None:
    app = opened("interventions", clean, **PLACE)
    given = '{"site": "mlp_out", "layer": 1, "op": "scale", "source": 1}'
    app.text_area(key="interventions-json").input(given)
    app = settled(press(app, "Run with every view"), held)
    [said] = headline(app)
    before, after = said.split("**")[1].split(" → ")
    assert before == after, "a scale of 1 changes nothing"
    assert any(button.key == "interventions-compare" for button in app.button)
    app.text_area(key="interventions-json").input("[]")
    press(app, "Run with every view")
    assert not headline(app), "what the former edit did is not shown below the error"


def test_the_clean_and_the_edited_continuation_stand_side_by_side(
    held: Services, opened: Open, clean: RunResult
) -> None:
    app = opened("interventions", clean, **PLACE)
    app.text_area(key="interventions-json").input('{"site": "resid", "layer": 3, "op": "set", "source": "zero"}')
    press(app, "Continue the text")
    for _ in range(2):  # the edited one begins when the clean one is there
        app = settled(app, held)
    captions = [caption.value for caption in app.caption if "nats a token" in caption.value]
    assert [caption.split(":")[0] for caption in captions] == ["clean", "edited"]


def test_the_edit_to_begin_with_follows_the_selection_only_when_asked(opened: Open, clean: RunResult) -> None:
    app = opened("interventions", clean, point="2", pos="5")
    app.text_area(key="interventions-json").input("half an edit")
    app.query_params["point"], app.query_params["pos"], app.query_params["dim"] = "1", "7", "3"
    press(app, "Continue the text")
    assert app.text_area(key="interventions-json").value == "half an edit"
    press(app, "Begin at the selection")
    assert not app.error
    text = app.text_area(key="interventions-json").value
    assert '"layer": 1' in text
    assert '"positions": [7]' in text
    assert '"dims": [3]' in text


def test_every_head_in_turn_says_its_cost_first_and_names_the_largest(
    held: Services, opened: Open, clean: RunResult
) -> None:
    app = opened("interventions", clean, **PLACE)
    assert "12 passes, each from its block on: about 6 whole passes" in told(app)
    press(app, "Set every head to zero, one after another")
    assert "interventions-heads" in panels(app)
    read = answered(held, clean, ProbeCall("head_effects", {"to": "zero"}))
    rows = read.table("head_metrics").query("metric == 'effect_nll'")
    top = rows.loc[rows["value"].idxmax()]
    assert f"Largest: head {top['layer']}.{top['head']}, {top['value']:.3f} nats" in told(app)


def test_a_text_too_short_to_compare_has_no_largest_head(held: Services, opened: Open) -> None:
    job = held.ask(Ask("mine", "a", bos=False))
    assert job.wait(120)
    app = opened("interventions", held.open(job.result), point="1", pos="0")
    press(app, "Set every head to zero, one after another")
    assert "This text is too short: there is nothing to compare." in told(app)
    assert "interventions-heads" not in panels(app)


def test_a_run_without_a_massive_entry_has_no_story(opened: Open, clean: RunResult) -> None:
    app = opened("story", clean)
    assert [info.value for info in app.info] == [
        "No block of this run writes a strictly massive activation: there is no such number to tell of."
    ]
    assert panels(app) == set()
