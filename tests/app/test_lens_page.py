"""The page Logit lens over a stored run without a model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.tuned_lens import Translators
from app.figures.lens import COLOURS
from app.figures.lens_lines import SUFFIX
from app.panels import registry
from app.panels.attribution import QUESTIONS
from app.panels.lens import VARIANTS, window
from app.panels.panel import Click
from app.selection import Selection
from app.view import View
from probes.lenses.folder import LensConfig, save_lens
from probes.request import ProbeCall, run_id
from tests.app.conftest import OpenPage
from tests.app.fakes import HEADS, HOSTILE, LAYERS, TEXT, FakeResult, fake_result, fake_services, told

TOKENS = HOSTILE + TEXT * 3
LAST = len(TOKENS) - 1
METRICS = ("lens_kl", "lens_entropy", "lens_ce", "lens_ce_final", "lens_rank", "lens_rank_control", "lens_top1_nlp")


def renamed(made: FakeResult, run_id: str, notes: tuple[str, ...] = (), **tables: pd.DataFrame) -> FakeResult:
    info = SimpleNamespace(**{**vars(made.info), "run_id": run_id, "notes": notes})
    return replace(made, info=info, tables=tables)


def lens_tables(n_tokens: int) -> dict[str, pd.DataFrame]:
    """Every metric at every point and position, in every variant."""
    layer, pos = np.indices((LAYERS + 1, n_tokens)).reshape(2, -1)
    cells = pd.DataFrame({"layer": layer, "pos": pos, "value": 1.0 + layer + pos / 10, "n_used": 1, "status": "ok"})
    places = pd.DataFrame({"layer": pd.NA, "pos": range(n_tokens), "value": 4.0, "n_used": 7, "status": "ok"})
    tokens, tops = [], []
    for variant, suffix in SUFFIX.items():
        tokens += [cells.assign(metric=metric + suffix) for metric in METRICS]
        tokens += [places.assign(metric=metric + suffix) for metric in ("lens_depth", "lens_convergence")]
        tops += [cells[["layer", "pos"]].assign(variant=variant, rank=r, token_id=r, prob=0.5 / r) for r in (1, 2)]
    frame = pd.concat(tokens, ignore_index=True).astype({"layer": "Int64"})
    return {"token_metrics": frame, "lens_topk": pd.concat(tops, ignore_index=True)}


def component_tables(position: int, split: tuple[int, int] = (LAYERS - 1, HEADS - 1)) -> dict[str, pd.DataFrame]:
    rows: list[tuple] = [(pd.NA, "embed", pd.NA, pd.NA, 1.0), (pd.NA, "norm_bias", pd.NA, pd.NA, 0.5)]
    rows += [(b, "head", h, pd.NA, float(b + h)) for b in range(LAYERS) for h in range(HEADS)]
    rows += [(b, "mlp", pd.NA, pd.NA, 1.0) for b in range(LAYERS)]
    rows += [(split[0], "head", split[1], source, 1.0) for source in range(position + 1)]
    frame = pd.DataFrame(rows, columns=["layer", "component", "head", "source_pos", "value"])
    frame = frame.astype({"layer": "Int64", "head": "Int64", "source_pos": "Int64"})
    checks = pd.DataFrame({"metric": ["dla_total", "dla_error"], "value": [9.5, 2e-7]})
    return {"components": frame.assign(pos=position, target="0-2"), "token_metrics": checks}


def answering(shown: FakeResult, refusal: str = "") -> Callable[..., FakeResult]:
    """Answers further probes at once, and stores the answers."""

    def extra(view: View, call: ProbeCall, **_: object) -> FakeResult:
        wanted = run_id(view.info.capture_id, view.info.request.with_probes(call))
        if call.name == "lens":
            made = renamed(shown, wanted, **lens_tables(len(view.tokens)))
        else:
            params = {name: call.params[name] for name in ("also",) if name in call.params}
            tables = {} if refusal else component_tables(call.params["position"], *params.values())
            made = renamed(shown, wanted, (refusal,), **tables)
        view.services.runner.results[wanted] = made
        return made

    return extra


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage):
    """Put a result behind the app and open the page on it; further probes are answered at once, or never."""

    def served(shown: FakeResult, *, answers: bool = True, refusal: str = "", **query: str) -> AppTest:
        extra = answering(shown, refusal) if answers else lambda *_, **__: None
        monkeypatch.setattr("app.views.lens.extra", extra)
        monkeypatch.setattr("app.components.inspector.extra", lambda *_, **__: None)
        return open_page("lens", shown, **query)

    return served


def test_every_panel_is_drawn_mean_corrected_first(serve) -> None:
    app = serve(fake_result(TOKENS), point="3", pos="9")
    assert not app.exception
    for title in (
        "The map, mean-corrected", "Position 9", "Rank of the token after position 9", "KL to the end, all positions",
        "Rank of the next token, median",
        "Ranks of several tokens, mean-corrected", "Heads", "Source tokens of block 5, head 3, the strongest",
    ):  # fmt: skip
        assert f"**{title}**" in told(app)
    assert "mean-corrected: settled at point 4 · rate 4" in told(app)
    assert "The model's own number is 9.5; the parts sum to it within 2e-07" in told(app)


def test_texts_of_the_attributed_tokens_are_literal(serve) -> None:
    app = serve(fake_result(TOKENS), pos="9")
    assert r"\<script\>alert\(1\)\<\/script\> against" in told(app)


@pytest.mark.parametrize("variant", ["raw", "no_norm", "tail"])
def test_the_variant_is_a_switch(serve, variant: str) -> None:
    app = serve(fake_result(TOKENS), pos="9")
    app.segmented_control(key="lens-variant").set_value(variant).run()
    assert not app.exception
    assert f"The map, {VARIANTS[variant]}" in told(app)


def test_a_tuned_lens_is_offered_where_one_of_this_shape_is_installed(serve, empty_home: Path) -> None:
    shown = fake_result(TOKENS)
    assert "train one on the page" in told(serve(shown, pos="9"))
    for name, width in (("near", shown.facts.d_model), ("other", shown.facts.d_model + 1)):
        lens = Translators.zero(1, 1)
        save_lens(empty_home / "lenses" / name, lens, LensConfig("tiny", width, LAYERS, True, None, "f" * 64))
    app = serve(shown, pos="9")
    assert "train one on the page" not in told(app)
    app.segmented_control(key="lens-variant").set_value("tuned").run()
    assert not app.exception
    assert app.selectbox(key="lens-tuned").options == ["near"]
    assert "The map, tuned" in told(app)
    assert "Ranks of several tokens, tuned" in told(app)


def test_every_colour_and_question_can_be_chosen(serve) -> None:
    app = serve(fake_result(TOKENS), pos="9")
    for colour in COLOURS:
        app.selectbox(key="lens-colour").set_value(colour).run()
        assert not app.exception, colour
    for question in QUESTIONS:
        app.segmented_control(key="lens-attribute").set_value(question).run()
        assert not app.exception, question


def test_the_last_position_has_no_rank_and_no_next_token_to_attribute(serve) -> None:
    app = serve(fake_result(TOKENS), pos=str(LAST))
    assert "The last token has no next one: there is no rank." in told(app)
    app.segmented_control(key="lens-attribute").set_value("next").run()
    assert "The last token has no next one to attribute." in told(app)


def test_until_all_positions_are_read_the_runs_own_sample_is_shown(serve) -> None:
    app = serve(fake_result(TOKENS), answers=False, pos="9")
    assert not app.exception
    assert "**The map, mean-corrected**" in told(app)


def test_a_run_without_lens_says_so(serve) -> None:
    shown = fake_result(TOKENS)
    shown.tables.pop("lens_topk")
    app = serve(shown, answers=False)
    assert not app.exception
    assert "This lens has not been read here." in told(app)


def test_a_model_without_attribution_says_why(serve) -> None:
    app = serve(fake_result(TOKENS), refusal="Attribution does not apply to this model: *x*.")
    assert not app.exception
    assert r"Attribution does not apply to this model\: \*x\*" in told(app)


def test_the_selected_head_is_split_on_demand(serve) -> None:
    app = serve(fake_result(TOKENS), point="3", head="1", pos="9")
    assert not app.exception
    assert "**Source tokens of block 2, head 1**" in told(app)


def test_long_texts_are_read_in_stretches(serve) -> None:
    app = serve(fake_result(TEXT * 60), pos="590")
    assert not app.exception
    assert window(View(fake_services(), fake_result(TEXT * 60), Selection(3, 590))) == (512, 599)
    assert window(View(fake_services(), fake_result(TEXT * 30), Selection(3, 290))) == (0, 299)


def test_the_stretch_begins_where_the_selection_says(serve) -> None:
    app = serve(fake_result(TEXT * 60), pos="590", **{"from": "130"})
    assert not app.exception
    view = View(fake_services(), fake_result(TEXT * 60), Selection(3, 590, first=130))
    assert window(view) == (130, 385)
    assert window(replace(view, selection=Selection(3, 590, first=599))) == (344, 599), "it is full to the end"


def test_clicks_select_what_was_clicked() -> None:
    view = View(fake_services(), fake_result(TOKENS), Selection(3, 9))
    answer = answering(fake_result(TOKENS))
    answer(view, ProbeCall("lens", {"positions": "all"}))
    answer(view, ProbeCall("attribution", {"position": 9}))

    def picked(key: str, x: float, y: float) -> dict[str, int | None]:
        return dict(registry.panel(key).draw(view).picked(Click(x, y)))

    assert picked("lens-map", 7, 3) == {"point": 3, "position": 7}
    assert picked("lens-position", 5.0, 0.3) == {"point": 5}
    assert picked("lens-heads", 2.0, 5.0) == {"point": 6, "head": 2}
    assert picked("lens-sources", 4, 0.1) == {"position": 4}
    assert picked("lens-parts", LAYERS + 1, 0.5) == {"point": LAYERS}, "the biases stand after the last point"
