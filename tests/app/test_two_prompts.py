"""Two prompts side by side, on real runs of tiny models: logits, patching, tokens chosen one by one, continuations."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from app.services import Services
from probes.request import ProbeCall
from probes.runner import RunResult
from tests import tiny
from tests.app.fakes import told
from tests.app.real_runs import answered, opener, panels, press, ran, services_over


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services_over(tmp_path_factory.mktemp("two-prompts")) as made:
        yield made


@pytest.fixture(scope="module")
def clean(held: Services) -> RunResult:
    return ran(held, tiny.TEXT)


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
def waited(held: Services) -> Iterator[None]:
    """``answer_panels`` over the real services."""
    with opener(held):
        yield


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
