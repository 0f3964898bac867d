"""Does it matter, and what if: offers, tests, own edits and two prompts, on real runs of tiny models."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.components import test_answer
from app.services import Ask, Services, start
from probes.request import ProbeCall, run_id
from probes.runner import RunResult
from tests import tiny
from tests.app.conftest import OpenPage
from tests.app.fakes import FakeResult, fake_result, told

PLACE = {"point": "2", "pos": "5"}
Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Real services over a home with three tiny models: ``short`` has fewer blocks than ``mine``, ``wide`` more tokens."""
    home = tmp_path_factory.mktemp("interventions")
    for name, changes in (("mine", {}), ("short", {"num_hidden_layers": 2}), ("wide", {"vocab_size": 300})):
        tiny.save(home / "models" / name, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENSCOPE_HOME", str(home))
        made = start()
        yield made
        made.close()


@pytest.fixture(scope="module")
def clean(held: Services) -> RunResult:
    return ran(held, tiny.TEXT)


@pytest.fixture
def opened(held: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """``opened(page, run, **query)``: a page over the real services; jobs are waited for, not polled."""
    monkeypatch.setattr("app.components.backend.start", lambda: held)
    monkeypatch.setattr("app.components.extra._PATIENCE", 120.0)
    st.cache_resource.clear()

    def open_page(name: str, run: RunResult, **query: str) -> AppTest:
        app = AppTest.from_string(f"from app.views.{name} import page\n\npage()\n", default_timeout=120)
        for key, value in {"run": run.info.run_id, **query}.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    yield open_page
    st.cache_resource.clear()


def ran(held: Services, text: str, model: str = "mine") -> RunResult:
    job = held.ask(Ask(model, text))
    assert job.wait(120)
    assert job.error is None
    result = held.open(job.result)
    assert result is not None
    return result


def settled(app: AppTest, held: Services) -> AppTest:
    """The page once nothing runs any more."""
    for job in held.desk.active():
        assert job.wait(120)
    app.run()
    assert not app.exception
    return app


def offered(app: AppTest) -> set[str]:
    return {button.key.removeprefix("test-").rpartition("-")[0] for button in app.button if _tests(button.key)}


def _tests(key: str | None) -> bool:
    return str(key).startswith("test-") and str(key).endswith(("-zero", "-mean"))


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click()
    app.run()
    assert not app.exception
    return app


def massive() -> FakeResult:
    """An imagined run in which two entries are born, the second the larger one."""
    made = fake_result()
    births = pd.DataFrame(
        {
            "birth": [2, 3], "pos": [4, 0], "dim": [9, 7], "death": [5, 6], "attn_delta": [90.0, -10.0],
            "mlp_delta": [10.0, 2480.0],
        }
    )  # fmt: skip
    return replace(made, tables={**made.tables, "massive_events": births})


def test_without_dimension_head_or_massive_entry_a_key_and_a_block_are_offered(open_page: OpenPage) -> None:
    app = open_page("interventions", fake_result(), point="3", pos="2")
    assert not app.exception
    assert offered(app) == {"sink", "key", "block"}
    assert "attention to position 2, from block" in told(app)
    assert ":small[:gray[block 2]]" in told(app)


def test_the_largest_massive_entry_is_offered_at_its_birth_and_a_selected_one_before_it(open_page: OpenPage) -> None:
    app = open_page("interventions", massive(), point="5", pos="2")
    assert offered(app) == {"entry", "sink", "key", "block"}
    assert "the largest entry of this text (point 3, position 0, dimension 7)" in told(app)
    app = open_page("interventions", massive(), point="5", pos="2", dim="11")
    assert offered(app) == {"entry", "sink", "key", "block", "dimension"}
    assert "the selected entry (point 5, position 2, dimension 11)" in told(app)
    assert "dimension 11 at point 5" in told(app)


def test_a_selected_head_is_offered(open_page: OpenPage) -> None:
    app = open_page("interventions", fake_result(), point="3", head="1")
    assert offered(app) == {"sink", "key", "key-head", "head", "block"}
    assert ":small[:gray[head 2.1]]" in told(app)
    assert ":small[:gray[in head 2.1 alone]]" in told(app)


def test_no_two_tests_have_the_same_name(open_page: OpenPage) -> None:
    app = open_page("interventions", massive(), point="5", pos="2", dim="11", head="1")
    buttons = [button for button in app.button if _tests(button.key)]
    assert len(buttons) == 12
    assert len({button.label for button in buttons}) == len(buttons)


def test_a_run_whose_tokens_nobody_read_is_offered_nothing(open_page: OpenPage) -> None:
    made = fake_result()
    app = open_page("interventions", replace(made, tables={**made.tables, "token_metrics": pd.DataFrame()}))
    assert not app.exception
    assert offered(app) == set()


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


def two(a: str, b: str) -> None:
    from app.components.backend import services
    from app.components.two_prompts import answer_panels
    from app.selection import Selection
    from app.view import View

    held = services()
    answer_panels(*(View(held, held.open(run), Selection()) for run in (a, b)))


def beside(a: RunResult, b: RunResult) -> AppTest:
    app = AppTest.from_function(two, kwargs={"a": a.info.run_id, "b": b.info.run_id}, default_timeout=120).run()
    assert not app.exception
    return app


@pytest.fixture
def waited(opened: Open) -> None:
    """``answer_panels`` over the real services."""


@pytest.mark.usefixtures("waited")
def test_two_prompts_of_one_length_are_patched(held: Services, clean: RunResult) -> None:
    b = ran(held, tiny.TEXT.replace("river", "rover"))
    app = beside(clean, b)
    assert "compare-logits" in panels(app)
    assert "compare-patching" not in panels(app), "patching waits to be asked"
    press(app, f"Patch every point and position ({b.info.n_tokens} tokens)")
    assert "compare-patching" in panels(app)
    assert "Unpatched, the logit difference is " in told(app)


@pytest.mark.usefixtures("waited")
@pytest.mark.parametrize(
    ("text", "model", "says"),
    [
        (tiny.TEXT + "!", "mine", "Patching needs two prompts of the same length, at most 128 tokens"),
        (tiny.TEXT, "mine", "A and B are the same run: there is no difference."),
        (tiny.TEXT, "short", "Patching needs two runs of one model."),
        (tiny.TEXT, "short", "Models of different depth have no common points."),
        (tiny.TEXT, "wide", "The two models do not share a vocabulary."),
    ],
)
def test_what_cannot_be_patched_says_why(held: Services, clean: RunResult, text: str, model: str, says: str) -> None:
    app = beside(clean, ran(held, text, model))
    assert sum(caption.value.startswith(says) for caption in app.caption) == 1
    assert not any(button.label.startswith("Patch every") for button in app.button)
    assert "**Continuations**" in told(app), "they need no common ground"


@pytest.mark.usefixtures("waited")
def test_the_same_prompt_read_another_way_is_not_patched(held: Services, clean: RunResult) -> None:
    request = replace(clean.info.request, mask="no_sink")
    app = beside(clean, held.runner.run(request))
    assert any(caption.value.startswith("A and B are the same prompt") for caption in app.caption)


@pytest.mark.usefixtures("waited")
def test_tokens_are_chosen_one_by_one(held: Services, clean: RunResult) -> None:
    app = beside(clean, ran(held, tiny.TEXT.replace("old", "new")))
    first, second = app.text_input
    shown = first.value
    first.input("two").run()
    assert not app.exception
    assert "“two” is 3 tokens" in app.warning[0].value
    assert "compare-logits" not in panels(app)
    first.input("<mark>").run()
    assert not app.warning
    assert "“\\<mark\\>” − “" in told(app)
    first.input("·").run()
    assert "“·” − “" in told(app), "a space as the strip shows it"
    second.input("·").run()
    assert app.warning[0].value == "Give two different tokens."
    first.input(shown).run()
    assert not app.warning


@pytest.mark.usefixtures("waited")
def test_continuations_are_written_when_asked(held: Services, clean: RunResult) -> None:
    b = ran(held, tiny.TEXT + "?")
    app = beside(clean, b)
    assert not any(caption.value.startswith("B: mean surprise") for caption in app.caption)
    press(app, "Let B go on for 40 tokens")
    assert any(caption.value.startswith("B: mean surprise") for caption in app.caption)
    tokens = answered(held, b, ProbeCall("continuation", {"tokens": 40})).tensor("continuation")
    written = "".join(piece if piece.isprintable() else "" for piece in held.decode("mine", tokens.tolist()))
    assert any(len(set(element.value) & set(written)) > 3 for element in app.markdown)


def answered(held: Services, run: RunResult, call: ProbeCall) -> RunResult:
    """What the store has of one more question about a run."""
    found = held.open(run_id(run.info.capture_id, run.info.request.with_probes(call)))
    assert found is not None
    return found


def headline(app: AppTest) -> list[str]:
    return [element.value for element in app.markdown if element.value.startswith("Perplexity **")]


def panels(app: AppTest) -> set[str]:
    """The keys of the charts that are drawn."""
    return {chart.proto.id.rpartition("chart-")[2] for chart in app.get("plotly_chart")}
