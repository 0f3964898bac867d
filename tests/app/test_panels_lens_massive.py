"""Panels of the logit lens, of attribution and of massive activations, drawn without a page."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from app.figures.lens import COLOURS
from app.figures.lens_lines import SUFFIX
from app.panels import registry
from app.panels.attribution import QUESTIONS, attribution_call, source_call
from app.panels.lens import VARIANTS, lens_call, read_lens
from app.panels.massive import CRITERIA, DRAWINGS
from app.panels.panel import Click, Drawn, Place
from app.selection import Selection
from app.view import View, run_bounds
from tests.app.fakes import HEADS, LAYERS, TEXT, FakeResult, fake_result, fake_services
from tests.app.test_lens_page import answering
from tests.app.test_massive_page import result

TOKENS = TEXT * 5
LONG = TEXT * 60
LENS = ("lens-map", "lens-position", "lens-rank", "lens-kl", "lens-ranks")
FREE = {str: ["near"], int: [2]}  # a tuned lens by name, the blocks of the tail lens
PARTS = ("lens-parts", "lens-heads", "lens-sources")
MASSIVE = ("massive-top", "massive-lives", "massive-writers", "massive-rogue", "massive-entries-map")
SELECTIONS = (
    Selection(3, 9),
    Selection(0, 0, head=2, dimension=7),
    Selection(LAYERS, 20, head=1, dimension=9, first=3, span=(4, 8)),
    Selection(2, len(TOKENS) - 2, dimension=30),
)


def seen(shown: FakeResult, selection: Selection = SELECTIONS[0], *, answered: bool = True) -> View:
    """A view of a run whose further questions are all answered."""
    view = View(fake_services(shown), shown, selection)
    if answered:
        answer = answering(shown)
        for variant in VARIANTS:
            answer(view, lens_call(view, variant, "near"))
        for call in filter(None, (attribution_call(view, question) for question in QUESTIONS)):
            answer(view, call)
        for question in QUESTIONS:
            if attribution_call(view, question) is not None:
                answer(view, source_call(view, question)[0])
    return view


def draw(view: View, key: str, **options: object) -> Drawn:
    return registry.panel(key).draw(view, options)


def choices(key: str) -> list[dict[str, object]]:
    """Every combination of the options of a panel."""
    options = registry.panel(key).options
    values = itertools.product(*(FREE.get(option.values, option.values) for option in options.values()))
    return [dict(zip(options, chosen, strict=True)) for chosen in values]


def clicks(fig: go.Figure) -> Iterator[Click]:
    """The first and the last point or cell of every trace."""
    for curve, trace in enumerate(fig.data):
        if trace.hoverinfo == "skip":
            continue
        shape = np.shape(trace.z) if trace.type == "heatmap" else (len(trace.x),)
        for place in (np.zeros(len(shape), dtype=int), np.array(shape) - 1):
            x = place[-1] if trace.x is None else trace.x[place[-1]]
            y = place[0] if trace.y is None else trace.y[place[0]]
            told = trace.customdata
            yield Click(x, y, None if told is None else np.asarray(told)[tuple(place)], curve)


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("key", [*LENS, *PARTS, *MASSIVE])
def test_every_panel_has_figure_table_and_valid_clicks_for_every_option(key: str, selection: Selection) -> None:
    shown = result(TOKENS)
    limits, view = run_bounds(shown), seen(shown, selection)
    for options in choices(key):
        drawn = draw(view, key, **options)
        assert drawn.fig is not None, (options, drawn.note)
        table = drawn.table()
        assert isinstance(table, pd.DataFrame)
        assert len(table), options
        if not drawn.clickable:
            assert options.get("drawing") in ("surface", "log surface"), "a drag turns a surface, it selects nothing"
            continue
        for click in clicks(drawn.fig):
            for part, value in drawn.picked(click).items():
                assert value is not None
                assert 0 <= value <= getattr(limits, part), (part, value)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("key", [*LENS, *PARTS, *MASSIVE])
def test_a_run_without_tables_gives_a_note(key: str, answered: bool) -> None:
    shown = fake_result(TOKENS)
    shown.tables.clear()
    view = seen(shown, answered=False)
    if answered:
        for wanted in (lens_call(view, "mean"), attribution_call(view, "best")):
            answering(shown, "Refused: *why*.")(view, wanted)
            made = view.find(wanted)
            assert made is not None
            made.tables.clear()
    for options in choices(key):
        drawn = draw(view, key, **options)
        assert drawn.fig is None
        assert drawn.note
        assert drawn.title


def test_options_are_the_widgets_of_the_pages() -> None:
    widgets = {
        option.widget: set(FREE.get(option.values, option.values))
        for key in (*LENS, *PARTS, *MASSIVE)
        for option in registry.panel(key).options.values()
    }
    assert widgets == {
        "lens-variant": set(VARIANTS),
        "lens-colour": set(COLOURS),
        "lens-tuned": {"near"},
        "lens-tail": {2},
        "lens-attribute": set(QUESTIONS),
        "massive-criterion": set(CRITERIA),
        "massive-drawing": set(DRAWINGS),
    }


def test_the_lens_falls_back_to_what_the_run_has_read() -> None:
    shown = fake_result(TOKENS)
    view = seen(shown, answered=False)
    assert read_lens(view, "mean") is view
    assert draw(view, "lens-map").fig is not None
    assert draw(view, "lens-map", variant="no_norm").note == "This lens has not been read here."
    answering(shown)(view, lens_call(view, "no_norm"))
    drawn = draw(view, "lens-map", variant="no_norm")
    assert drawn.title == "The map, without final norm"
    assert drawn.fig is not None


def test_the_map_shows_the_tokens_in_sight() -> None:
    for tokens, selection, first, count in (
        (TEXT * 29, Selection(3, 0, first=20), 20, 256),
        (TEXT * 29, Selection(3, 280), 34, 256),
        (LONG, Selection(3, 300), 256, 256),
        (LONG, Selection(3, 300, first=70), 70, 256),
        (LONG, Selection(3, 590), 512, 88),
    ):
        heat = draw(seen(fake_result(tokens), selection), "lens-map").fig.data[0]
        assert heat.x.tolist() == list(range(first, first + count))
        assert np.isfinite(heat.z).all()


def test_ranks_are_those_of_the_store() -> None:
    view = seen(fake_result(TOKENS))
    table = draw(view, "lens-rank").table()
    assert set(table["pos"]) == {9}
    assert set(table["metric"]) == {f"lens_rank{what}{variant}" for what in ("", "_control") for variant in
                                    SUFFIX.values()}  # fmt: skip
    stored = read_lens(view, "mean").metric("token_metrics", "lens_rank@mean")
    expected = stored[stored["pos"] == 9].sort_values("layer")["value"].tolist()
    assert table[table["metric"] == "lens_rank@mean"].sort_values("layer")["value"].tolist() == expected
    readings = draw(view, "lens-map").table()
    assert {"variant", "rank", "prob", "text"} <= set(readings)


def test_the_last_token_has_no_rank_and_nothing_to_attribute() -> None:
    view = seen(fake_result(TOKENS), Selection(3, len(TOKENS) - 1))
    assert draw(view, "lens-rank").note == "The last token has no next one: there is no rank."
    for key in PARTS:
        assert draw(view, key, attribute="next").note == "The last token has no next one to attribute."
        assert draw(view, key).fig is not None


def test_the_selected_head_is_split_by_a_question_of_its_own() -> None:
    view = seen(fake_result(TOKENS), Selection(3, 9, head=1))
    call, block, head = source_call(view, "plain")
    assert (block, head) == (2, 1)
    assert call.params == {"position": 9, "versus": None, "strongest": 0, "also": (2, 1)}
    strongest = replace(view, selection=Selection(3, 9))
    assert source_call(strongest, "plain") == (attribution_call(strongest, "plain"), LAYERS - 1, HEADS - 1)


def test_sources_of_a_long_text_say_what_is_out_of_sight() -> None:
    drawn = draw(seen(fake_result(LONG), Selection(3, 500, first=300)), "lens-sources")
    assert drawn.note == "Positions 300 to 555; the other tokens add 300."
    assert drawn.fig.data[0].x.tolist() == list(range(300, 501))
    assert len(drawn.table()) == 501


def test_heads_have_their_contribution_and_share() -> None:
    table = draw(seen(fake_result(TOKENS)), "lens-heads").table()
    assert len(table) == LAYERS * HEADS
    assert table["source_pos"].isna().all()
    assert table["value"].tolist() == [float(block + head) for block in range(LAYERS) for head in range(HEADS)]


def test_writers_list_both_parts_of_the_block_and_its_neurons() -> None:
    table = draw(seen(result(TOKENS)), "massive-writers").table()
    assert table["part"].tolist() == ["attention", "MLP", "neuron", "neuron"]
    assert table["added"].tolist() == [1.0, 2480.0, 2000.0, 480.0]
    assert table["neuron"].tolist()[2:] == [11, 12]
    assert set(table["layer"]) == {2}


def test_writers_without_neurons_still_show_the_parts() -> None:
    shown = result(TOKENS)
    shown.tables.pop("massive_neurons")
    drawn = draw(seen(shown), "massive-writers")
    assert drawn.fig is not None
    assert drawn.table()["part"].tolist() == ["attention", "MLP"]


def test_rogue_dimensions_and_entries_give_the_numbers_of_their_tensors() -> None:
    shown = result(TOKENS)
    view = seen(shown, Selection(4, 9))
    rogue = draw(view, "massive-rogue").table()
    one = rogue[(rogue["point"] == 4) & (rogue["dim"] == 11)].iloc[0]
    assert one["share"] == shown.tensors["rogue_share"][4, 11].item()
    assert one["sd"] == shown.tensors["rogue_sd"][4, 11].item()
    for drawing in DRAWINGS:
        entries = draw(view, "massive-entries-map", drawing=drawing).table()
        values = entries.set_index(["pos", "dim"])["value"]
        assert values[9, 11] == shown.tensors["resid.4"][9, 11].item()


def test_the_map_of_entries_has_its_cursor_at_the_selected_dimension() -> None:
    view = seen(result(TOKENS), Selection(4, 9, dimension=11))
    place = draw(view, "massive-entries-map", drawing="map").place
    assert isinstance(place, Place)
    assert place.at(view.selection) == (9, 11)
    assert draw(view, "massive-entries-map").place is None
    rogue = draw(view, "massive-rogue")
    assert rogue.place.at(view.selection)[0] == 4


def test_a_criterion_that_nothing_meets_is_a_gap() -> None:
    shown = result(TOKENS)
    shown.tables["massive"] = shown.tables["massive"].assign(relative=False)
    drawn = draw(seen(shown), "massive-lives", criterion="relative")
    assert drawn.note == "No entry is massive by the relative criterion in this run."
