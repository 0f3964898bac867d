"""Groups and models compared: the numbers are those of analysis on what was run, refusals are sentences, the page shows both."""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest
import streamlit as st
from scipy import stats
from streamlit.testing.v1 import AppTest

from analysis.groups import Groups, compare_groups
from app.compare_groups import group_document
from app.group_models import compared_models
from app.groups import GroupAsk, compared, matched_ask, matched_length, measured, specified
from app.panels.groups import options_of
from app.panels.registry import panel
from app.selection import Selection
from app.services import Services, start
from app.view import View
from probes.errors import BadRequest
from probes.progress import Progress
from probes.prompts.library import find_set, import_set
from probes.prompts.sets import read_set
from probes.request import DEFAULT_PROBES, RunRequest
from probes.set_sweep import SetAsk, sweep_set
from tests import tiny

N_PROMPTS = 8
LINES = "".join(
    json.dumps({"id": f"p{n}", "text": f"{tiny.TEXT[n : 60 + n]} {n}", "group": "ab"[n % 2]}) + "\n"
    for n in range(N_PROMPTS)
)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Real services over a home with two tiny models; a set of two groups was run on the first."""
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "models" / "small")
    tiny.save(home / "models" / "other", intermediate_size=96)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENSCOPE_HOME", str(home))
        made = start()
        import_set(made.store, read_set("own", LINES.encode(), "own.jsonl", "own.jsonl"))
        sweep_set(made.runner, made.shelf, asked(made).asked, Progress())
        yield made
        made.close()


def asked(held: Services, **changes: object) -> GroupAsk:
    like = RunRequest("small", (0,), DEFAULT_PROBES)
    return dataclasses.replace(GroupAsk(SetAsk(find_set(held.store, "own"), like), "a", "b"), **changes)


def test_groups_are_compared_by_what_was_run(held: Services) -> None:
    comparison, found = compared(held, asked(held))
    own = found.of("a")
    assert (own.sum(), (~own).sum()) == (4, 4)
    sides = found.values.values[own], found.values.values[~own]
    welch = stats.ttest_ind(*sides, equal_var=False)
    np.testing.assert_allclose(comparison.table["p"], welch.pvalue, rtol=1e-9)
    assert comparison.exploratory
    result = held.open(found.runs[0])
    assert result is not None
    alpha = result.table("layer_metrics").query("metric == 'alpha_sigma'").sort_values("layer")["value"]
    np.testing.assert_array_equal(found.values.values[0], alpha)


def test_a_matched_length_compares_every_convention_and_both_nulls(held: Services) -> None:
    ask = asked(held)
    n = matched_length(held, ask)
    ask = dataclasses.replace(ask, n=n)
    with pytest.raises(BadRequest, match="was run on small yet"):
        compared(held, ask)
    swept = sweep_set(held.runner, held.shelf, matched_ask(ask.asked, n), Progress())
    assert not swept.refused
    comparison, found = compared(held, ask)
    assert comparison.length_ratio == 1
    assert set(measured(held, dataclasses.replace(ask, metric="alpha_null")).values.tokens) == set(found.values.tokens)
    curve = specified(held, ask, None)
    assert len(curve.table) == 32
    headline = curve.table.set_index("name").loc["headline"]
    assert headline["difference"] == pytest.approx(comparison.overall["difference"], rel=1e-9)
    at_point = specified(held, ask, 2).table.set_index("name").loc["headline"]
    assert at_point["difference"] == pytest.approx(comparison.table["difference"][2], rel=1e-9)


def test_two_models_over_the_same_prompts(held: Services) -> None:
    ask = asked(held)
    with pytest.raises(BadRequest, match="other was neither loaded nor run"):
        compared_models(held, ask, "other")
    document = group_document(held, ask, "whole", "other", Progress())
    found = compared_models(held, ask, "other")
    assert (found.by_layer, found.n_prompts) == (True, N_PROMPTS)
    assert document["models"]["change"]["difference"] == pytest.approx(found.change.overall["difference"])
    assert document["models"]["reverses"] is found.turned.reverses
    itself = compared_models(held, ask, "small")
    assert itself.change.overall["difference"] == 0
    assert itself.turned.reverses is False
    json.dumps(document, allow_nan=False)


def test_what_cannot_be_compared_is_said(held: Services) -> None:
    with pytest.raises(BadRequest, match="two groups, not 'a' twice"):
        compared(held, asked(held, second="a"))
    with pytest.raises(BadRequest, match="No prompt of the group 'c' was run"):
        compared(held, asked(held, second="c"))
    with pytest.raises(BadRequest, match="metric 'no_such'"):
        compared(held, asked(held, metric="no_such"))


def test_equal_groups_do_not_differ(held: Services) -> None:
    _, found = compared(held, asked(held))
    values = found.values.values
    same = compare_groups(Groups(values, values, found.values.tokens, found.values.tokens))
    assert (same.table["p_bh"].dropna() == 1).all()


@pytest.mark.parametrize(
    "key",
    ["groups-means", "groups-difference", "groups-prompts", "groups-conventions", "groups-models", "groups-reversal"],
)
def test_every_panel_draws_or_says_why_not(held: Services, key: str) -> None:
    ask = asked(held)
    ask = dataclasses.replace(ask, n=matched_length(held, ask))
    sweep_set(held.runner, held.shelf, matched_ask(ask.asked, ask.n), Progress())
    group_document(held, asked(held), "whole", "other", Progress())
    _, found = compared(held, ask)
    result = held.open(found.runs[0])
    assert result is not None
    view = View(held, result, Selection())
    options = (
        options_of(ask)
        if "models" not in key and "reversal" not in key
        else {**options_of(asked(held)), "other": "other"}
    )
    if key == "groups-conventions":
        options = {name: value for name, value in options.items() if name != "metric"}
    drawn = panel(key).draw(view, options)
    assert drawn.fig is not None, drawn.note
    assert len(drawn.table()) > 1
    gone = panel(key).draw(view, {**options, "prompts": "gone"})
    assert gone.fig is None
    assert "gone" in gone.note


def groups_page() -> None:
    from app.views.groups import page

    page()


def test_the_page_compares_and_a_matched_length_is_run_first(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.components.backend.start", lambda: held)
    monkeypatch.setattr("app.components.keeping.local", lambda: True)
    st.cache_resource.clear()
    app = AppTest.from_function(groups_page, default_timeout=120).run()
    app.selectbox(key="sets-set").select("own").run()
    app.selectbox(key="sets-model").select("small").run()
    assert not app.exception
    assert "a − b" in " ".join(one.value for one in app.caption)
    app.selectbox(key="groups-second").select("a").run()
    assert [one.value for one in app.warning] == ["Choose two different groups."]
    app.selectbox(key="groups-second").select("b").run()
    app.selectbox(key="groups-metric").select("sink_score").run()
    assert not app.exception
    assert "a − b" in " ".join(one.value for one in app.caption)
    st.cache_resource.clear()
