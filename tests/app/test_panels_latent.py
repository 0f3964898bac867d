"""Panels of one latent and of all latents, over an imagined index whose texts and labels try to break out."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from app.figures.latent_examples import REACH, example_strips
from app.figures.latent_population import MOST_DRAWN, decoder_map, density_histogram
from app.panels.find import COLUMNS, apart, found_latents
from app.panels.panel import Click
from app.sae_index import fires_on, indexed, labels_of, neuronpedia, states
from app.selection import Selection
from app.text import csv_bytes
from app.view import Gap, View
from cache import Store
from probes.errors import BadRequest
from tests import tiny_saes
from tests.app.index_world import (
    CONTENT,
    DEAD,
    DENSE,
    EVIL,
    LATENTS,
    N_TOKENS,
    TOKENS,
    index_tables,
    install,
    other_sae,
    put_index,
    seen,
    stocked,
)
from tests.app.rich_run import draw, renamed, whole
from tests.app.test_latents_page import INFO, result

CLICKABLE = ("latent-neighbours", "latent-coactive", "latent-decoder-map")
STILL = ("latent-examples", "latent-activations", "latent-tokens", "find-latents")


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        put_index(opened)
        yield opened


@pytest.fixture
def view(store: Store, monkeypatch: pytest.MonkeyPatch) -> View:
    install(monkeypatch)
    return seen(store)


@pytest.mark.parametrize("key", CLICKABLE + STILL)
def test_every_panel_has_figure_table_and_valid_clicks(view: View, key: str) -> None:
    whole(view, draw(view, key), clickable=key in CLICKABLE)


@pytest.mark.parametrize("key", CLICKABLE + STILL)
def test_nothing_of_a_token_or_label_is_markup(view: View, key: str) -> None:
    view.services.store.put_sae_label(CONTENT, 18, EVIL)
    view.services.store.put_sae_label(CONTENT, 19, EVIL)
    drawn = draw(view, key)
    written = json.dumps(json.loads(drawn.fig.to_json())).replace("\\u003c", "<").replace("\\u0026", "&")
    for markup in ("<img", "<script", "$x", "%{x}</", "<|im"):
        assert markup not in written, markup
    assert "<img" not in drawn.title.replace("\\<img", "")
    assert b"\r\n=1" not in csv_bytes(drawn.table())


def test_examples_stand_with_their_peak_in_the_middle_strongest_first(view: View) -> None:
    drawn = draw(view, "latent-examples")
    boxes, words = drawn.fig.data
    table = drawn.table()
    peaks = np.asarray(boxes.marker.line.width) == 1
    assert peaks.sum() == 6
    starts, widths = np.asarray(boxes.base), np.asarray(boxes.x)
    assert np.abs(np.asarray(words.x)[peaks]).max() < 1e-5, "the middle of the token is the middle of the line"
    assert (starts >= -REACH).all()
    assert (starts + widths <= REACH).all()
    strongest = table[table["peak"]]["activation"].tolist()
    assert strongest == sorted(strongest, reverse=True)
    assert np.asarray(boxes.marker.color)[peaks].tolist() == pytest.approx(strongest)
    assert boxes.marker.cmax == pytest.approx(index_tables()["sae_latents"]["max"][17])
    sequence = table[table["seq"] == 1]
    assert sequence["token"].tolist() == [TOKENS[i % len(TOKENS)] for i in sequence["pos"] + 1]


def test_quantile_examples_are_from_every_bin(view: View) -> None:
    drawn = draw(view, "latent-examples", kind="quantile")
    assert set(drawn.table()["rank"]) == set(range(1, 11))
    assert "bin 10" in str(drawn.fig.layout.yaxis.ticktext)


def test_long_wide_and_empty_tokens_keep_their_room() -> None:
    tokens = ["x" * 300, " " * 50, "", "漢字", "\n", " a "]
    rows = pd.DataFrame({"example": 0, "pos": range(6), "token": tokens, "activation": 1.0, "peak": False, "text": "t"})
    rows.loc[3, "peak"] = True
    boxes, words = example_strips(rows, ["1"], 1.0).data
    assert np.asarray(boxes.x).tolist() == [24, 4, 1, 4, 1, 3]
    assert words.text[1] == ""
    assert words.text[4] == "⏎"
    assert words.text[3] == "<b>漢字</b>"


def test_the_histogram_holds_the_counts_of_the_store(view: View) -> None:
    table, counts = draw(view, "latent-activations").table(), index_tables()["sae_latents"]["histogram"][17]
    assert table["tokens"].tolist() == counts.tolist()
    assert table["to"].iloc[-1] == index_tables()["sae_latents"]["max"][17]


def test_a_neighbour_is_named_and_a_click_goes_to_it(view: View) -> None:
    drawn = draw(view, "latent-neighbours")
    assert drawn.picked(Click(0.9, 0)) == {"latent": 18}
    assert draw(view, "latent-coactive", kind="phi").picked(Click(0.9, 0)) == {"latent": 20}
    view.services.store.put_sae_label(CONTENT, 18, "mills")
    assert "18 mills" in draw(view, "latent-neighbours").fig.layout.yaxis.ticktext


def test_the_map_marks_the_latent_in_sight_and_a_click_goes_to_another(view: View) -> None:
    drawn, table = draw(view, "latent-decoder-map"), index_tables()["sae_latents"]
    assert drawn.place.at(view.selection) == (table["x"][17], table["y"][17])
    assert drawn.place.at(Selection(0, 0, latent=5000)) == (None, None)
    fires = drawn.fig.data[1]
    assert drawn.picked(Click(fires.x[3], fires.y[3], int(fires.customdata[3]), 1)) == {
        "latent": int(fires.customdata[3])
    }
    assert [len(trace.x) for trace in drawn.fig.data] == [1, LATENTS - 1]


def test_a_large_map_draws_those_that_fire_most() -> None:
    count = MOST_DRAWN + 50
    density = np.linspace(0, 0.5, count)
    latents = pd.DataFrame({"latent": range(count), "x": 0.0, "y": 0.0, "density": density, "n_fired": density > 0})
    fig = decoder_map(latents, {})
    assert sum(len(trace.x) for trace in fig.data) == MOST_DRAWN
    assert min(trace.customdata.min() for trace in fig.data if len(trace.x)) == 50
    assert len(fig.to_json()) < 400_000


@pytest.mark.parametrize("key", ["latent-examples", "latent-activations", "latent-tokens"])
def test_a_dead_latent_says_so_and_keeps_what_needs_no_firing(view: View, key: str) -> None:
    dead = replace(view, selection=Selection(3, 6, latent=DEAD))
    drawn = draw(dead, key)
    assert drawn.fig is None
    assert drawn.note == f"Latent 7 did not fire on any of the {N_TOKENS:,} tokens of the index."
    assert draw(dead, "latent-neighbours").fig is not None
    assert draw(dead, "latent-decoder-map").fig is not None
    assert draw(dead, "latent-coactive").note.startswith("Latent 7 has none: it fires too seldom")


@pytest.mark.parametrize("key", [*CLICKABLE, *STILL])
def test_an_sae_without_index_says_how_to_make_one(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with Store.open(":memory:") as empty:
        drawn = draw(seen(empty), key)
    assert drawn.fig is None
    assert "`python -m app sae index NAME`" in drawn.note


def test_a_latent_beyond_the_sae_and_an_sae_that_is_gone_are_told(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(replace(view, selection=Selection(3, 6, latent=256)), "latent-examples").note == (
        "It has no latent 256; it has 0 to 255."
    )
    install(monkeypatch, other_sae(INFO.folder))
    assert draw(view, "latent-examples").note == "The SAE fake\\-sae is not installed."


def test_an_index_of_a_variant_serves_but_one_of_another_model_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with Store.open(":memory:") as variant:
        put_index(variant, fingerprint="v" * 16, model="tiny@int4")
        assert indexed(seen(variant), "").row["model"] == "tiny@int4"
    with Store.open(":memory:") as foreign:
        put_index(foreign, fingerprint="o" * 16, model="other")
        with pytest.raises(Gap):
            indexed(seen(foreign), "")


def test_states_are_those_of_the_thresholds() -> None:
    latents = index_tables()["sae_latents"]
    named = states(latents, N_TOKENS)
    assert named[[DEAD, DENSE, 9, 17]].tolist() == ["dead", "dense", "ultra-rare", ""]
    assert states(latents, 99_999)[DEAD] == "never fired", "too few tokens to call it dead"


def test_a_search_finds_by_token_label_state_and_density(view: View) -> None:
    index = indexed(view, "")
    assert list(found_latents(index).columns) == list(COLUMNS)
    assert len(found_latents(index)) == LATENTS
    assert found_latents(index, state="never")["latent"].tolist() == [DEAD]
    assert found_latents(index, state="dense")["latent"].tolist() == [DENSE]
    assert found_latents(index, label="ONERROR")["latent"].tolist() == [17]
    view.services.store.put_sae_label(CONTENT, 40, "old mills")
    assert found_latents(index, label="old mill")["latent"].tolist() == [40]
    within = found_latents(index, density=[-3.0, -2.5])["density"]
    assert within.between(1e-3, 10**-2.5).all()
    assert len(within)
    with pytest.raises(BadRequest, match="two powers of ten"):
        found_latents(index, density=[400.0, 1e9])


def test_a_token_is_found_among_max_tokens_and_in_the_middle_of_examples(view: View) -> None:
    index, tables = indexed(view, ""), index_tables()
    found = set(fires_on(index, "IM_START").tolist())
    token = TOKENS.index("<|im_start|>")
    maxed = set(tables["sae_latent_tokens"].query("token_id == @token")["latent"])
    hits = tables["sae_hits"]
    peaks = set(hits[(hits["seq"] + hits["pos"]) % len(TOKENS) == token]["latent"])
    assert found == maxed | peaks
    assert 0 < len(found) < LATENTS
    assert fires_on(index, "zebra").tolist() == []


def test_the_density_histogram_counts_each_latent_once_and_sets_the_silent_apart() -> None:
    density = np.array([0.0, 0.0, 1e-3, 2e-3, 0.5, 1.0])
    everything, chosen = density_histogram(density, density > 0.1).data
    assert sum(everything.y) == 6
    assert everything.y[0] == 2
    assert sum(chosen.y) == 2
    assert np.isnan(everything.customdata[0]).all()
    assert everything.x[0] < everything.x[1] - 0.4
    assert np.diff(everything.customdata[1:], axis=1) == pytest.approx(0.25)


def test_what_tells_two_texts_apart_leaves_sinks_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    mine, other = result(), renamed(result(), "run1")
    rows = pd.DataFrame(
        {"sae": "fake-sae", "layer": 3, "pos": [0, 2, 3], "latent": [1, 2, 3], "activation": [99.0, 5.0, 1.0]}
    )
    mine.tables["latents"] = rows
    other = replace(other, tables={**other.tables, "latents": rows.assign(activation=[9.0, 1.0, 4.0])})
    held = stocked(store, mine)
    held.runner.results["run1"] = other  # type: ignore[attr-defined]
    view = View(held, mine, Selection(3, 2))
    table = apart(view, "", "run1")
    assert table["latent"].tolist() == [2, 3], "latent 1 fires at position 0 alone"
    assert table["difference"].tolist() == [4.0, -3.0]
    drawn = draw(view, "find-apart", b="run1")
    assert drawn.picked(Click(5.0, 0)) == {"latent": 2}
    assert draw(view, "find-apart").note == "No second run was chosen."


def test_labels_of_a_person_stand_before_the_default(view: View) -> None:
    assert labels_of(view, "")[3] == '" t3" → " w3"'
    view.services.store.put_sae_label(CONTENT, 3, "threes")
    assert labels_of(view, "")[3] == "threes"
    view.services.store.put_sae_label(CONTENT, 3, "")
    assert labels_of(view, "")[3] == '" t3" → " w3"'


@pytest.mark.parametrize(
    ("known", "address"),
    [
        ("gpt2-small/8-res-jb", "https://www.neuronpedia.org/gpt2-small/8-res-jb/5"),
        ("../etc", None),
        ("a/b/c", None),
        ("a/b?x=1", None),
        ("javascript:alert(1)/x", None),
        ("a/..", None),
        (7, None),
        (None, None),
    ],
)
def test_only_a_plain_id_becomes_an_address_at_neuronpedia(tmp_path, known, address) -> None:
    folder = tiny_saes.make(tmp_path / "sae", neuronpedia_id=known)
    assert neuronpedia(replace(INFO, folder=folder), 5) == address
