"""B on the axes of A: tables, tensors and figures of imagined runs whose answers are known."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alignment import Alignment, by_position, by_token
from app.changes import changes, set_apart
from app.comparable import PAGES, VIEWS, Comparable, view
from app.comparison import Pair, default_alignment, make_pair
from app.figures.difference import difference
from app.methods import section
from app.selection import Selection
from app.services import Memo
from app.view import Gap
from probes.model.edits import Edit
from tests.app.fakes import HEADS, LAYERS, TEXT, FakeResult, fake_result

PLACE = Selection(point=3, position=1)


def run(tokens: tuple[str, ...] = TEXT * 5, run_id: str = "run0", **facts: Any) -> FakeResult:
    made = fake_result(tokens, run_id)
    tensors = {"special": torch.zeros(len(tokens)), "no_sink": torch.arange(len(tokens)) > 0}
    tensors |= {f"resid.{point}": torch.full((len(tokens), 4), float(point)) for point in range(LAYERS + 1)}
    tensors["attention.column_sum"] = torch.ones(LAYERS, HEADS, len(tokens), dtype=torch.float64)
    return replace(made, facts=replace(made.facts, **facts), tensors=tensors)


def paired(a: FakeResult, b: FakeResult, alignment: Alignment, place: Selection = PLACE) -> Pair:
    decode = lambda model, ids, tokenizer=None: tuple(f"t{i}" for i in ids)  # noqa: E731
    return make_pair(a, b, alignment, place, Memo().get, decode)  # type: ignore[arg-type]


def test_positions_of_b_become_those_of_a_and_unmatched_ones_are_dropped() -> None:
    a, b = run(("x", "y", "z", "w")), run(("y", "new", "w", "v"), "run1")
    pair = paired(a, b, by_token(("x", "y", "z", "w"), ("y", "new", "w", "v")))
    assert pair.b.tokens == ("", "y", "", "w")
    moved = pair.b.metric("token_metrics", "resid_norm")
    assert sorted(moved["pos"].unique()) == [1, 3]
    own = b.tables["token_metrics"].query("metric == 'resid_norm' and layer == 2 and pos == 2")["value"].item()
    assert moved.query("layer == 2 and pos == 3")["value"].item() == own
    pd.testing.assert_frame_equal(
        pair.a.table("layer_metrics"), a.tables["layer_metrics"].reset_index(drop=True), check_dtype=False
    )


def test_a_shuffle_moves_every_position() -> None:
    tokens = ("x", "y", "z")
    pair = paired(run(tokens), run(tokens[::-1], "run1"), Alignment(((0, 2), (1, 1), (2, 0))))
    assert pair.b.tokens == tokens
    np.testing.assert_array_equal(pair.b.along(np.array([[5.0], [6.0], [7.0]])), [[7.0], [6.0], [5.0]])
    assert pair.position_of_b(0) == 2


def test_tensors_along_positions_are_nan_where_nothing_is_aligned() -> None:
    pair = paired(run(TEXT), run(TEXT[:4], "run1"), by_position(len(TEXT), 4))
    moved = pair.b.along(np.arange(4))
    np.testing.assert_array_equal(moved[:4], [0, 1, 2, 3])
    assert np.isnan(moved[4:]).all()
    assert pair.b.mask("no_sink").tolist() == [False, True, True, True] + [False] * 6


def test_a_deeper_b_stands_at_the_same_fraction_of_depth() -> None:
    a, b = run(), run(run_id="run1", n_layers=2 * LAYERS)
    layers = pd.concat(
        [b.tables["layer_metrics"], b.tables["layer_metrics"].assign(layer=lambda t: t["layer"] + LAYERS)]
    )
    heads = pd.DataFrame({"layer": [3, 5], "head": 0, "metric": "sink_score", "value": [0.3, 0.5], "n_used": 1})
    depth = pd.DataFrame({"layer": [pd.NA], "pos": [4], "metric": ["lens_depth"], "value": [10.0], "status": ["ok"]})
    tokens = pd.concat([b.tables["token_metrics"], depth], ignore_index=True).astype({"layer": "Int64"})
    tables = {**b.tables, "layer_metrics": layers, "head_metrics": heads, "token_metrics": tokens}
    pair = paired(a, replace(b, tables=tables), by_position(50, 50))
    assert pair.b.points == (0, 2, 4, 6, 8, 10, 12)
    assert (pair.b.point, pair.b.block) == (6, 5)
    assert sorted(pair.b.metric("layer_metrics", "sink_share")["layer"].unique()) == list(range(LAYERS + 1))
    assert pair.b.table("head_metrics")[["layer", "value"]].to_numpy().tolist() == [[1, 0.3], [2, 0.5]]
    assert pair.b.on_own_layers.table("head_metrics")["layer"].tolist() == [3, 5]
    assert pair.b.metric("token_metrics", "lens_depth")["value"].tolist() == [5.0], "a point of B, told as one of A"
    assert len(pair.b.metric("token_metrics", "nll")) == 50, "what has no layer stays"


def test_a_lens_is_compared_where_both_were_read() -> None:
    a, b = run(TEXT), run(TEXT, "run1")
    for result, read in ((a, [0, 2, 4]), (b, [2, 4, 6])):
        for name in ("token_metrics", "lens_topk"):
            rows = result.tables[name]
            lens = rows["pos"].isin(read)
            if name == "token_metrics":
                lens |= ~rows["metric"].str.startswith("lens_")
            result.tables[name] = rows[lens]
    pair = paired(a, b, by_position(10, 10))
    assert pair.a.read == {2, 4}
    for side in (pair.a, pair.b):
        assert set(side.table("lens_topk")["pos"]) == {2, 4}
        assert set(side.metric("token_metrics", "lens_kl")["pos"]) == {2, 4}
        assert len(side.metric("token_metrics", "nll")) == 10


def test_the_default_is_by_position_only_for_equal_ids() -> None:
    a, b = run(TEXT), run(TEXT, "run1")
    assert default_alignment(a, b)[0] == "position"  # type: ignore[arg-type]
    other = replace(b, tokens=b.tokens.assign(token_id=b.tokens["token_id"] + 1))
    how, alignment = default_alignment(a, other)  # type: ignore[arg-type]
    assert (how, len(alignment)) == ("token", len(TEXT))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="B has no position 9; it must be from 0 to 3"):
        paired(run(TEXT), run(TEXT[:4], "run1"), Alignment(((0, 9),)))
    with pytest.raises(ValueError, match="'weight_spectra' cannot be moved"):
        paired(run(), run(), by_position(50, 50)).a.table("weight_spectra")


@pytest.mark.parametrize("shown", VIEWS, ids=[shown.key for shown in VIEWS])
def test_every_view_of_a_run_against_itself_is_zero_or_says_why_not(shown: Comparable) -> None:
    a = run()
    pair = paired(a, a, by_position(50, 50), replace(PLACE, latent=7))
    before = {name: frame.copy() for name, frame in a.tables.items()}
    try:
        figs = [shown.build(side, pair) for side in (pair.a, pair.b)]
    except Gap:
        return  # the imagined run has no such numbers
    assert figs[0].to_json() == figs[1].to_json()
    for trace in difference(*figs).data:
        values = trace.z if trace.type == "heatmap" else trace.customdata[:, 1] - trace.customdata[:, 0] \
            if trace.customdata is not None else np.zeros(1)  # fmt: skip
        assert not np.any(np.nan_to_num(np.asarray(values, dtype=float)))
    for name, frame in a.tables.items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_every_view_has_its_own_key_a_page_and_its_section() -> None:
    assert len({shown.key for shown in VIEWS}) == len(VIEWS)
    assert {shown.page for shown in VIEWS} == set(PAGES)
    assert all(section(*shown.docs) for shown in VIEWS)
    assert view("nonsense") is None
    assert {change.view for change in changes(paired(run(), run(), by_position(50, 50)))} <= {s.key for s in VIEWS}


def test_heads_and_widths_that_do_not_match_say_why() -> None:
    pair = paired(run(), run(run_id="run1", n_heads=8, d_model=64), by_position(50, 50))
    heads, entries = view("sinks-sink-score"), view("massive-entries")
    assert heads is not None
    assert entries is not None
    assert "A has 6 blocks of 4 heads and B 6 of 8" in str(heads.apart(pair))
    assert "A has 32 dimensions and B 64" in str(entries.apart(pair))
    assert heads.apart(paired(run(), run(), by_position(50, 50))) is None


def test_a_selected_head_that_b_lacks_is_a_gap() -> None:
    pair = paired(run(), run(run_id="run1", n_heads=2), by_position(50, 50), Selection(point=3, position=1, head=3))
    received = view("sinks-tokens")
    assert received is not None
    with pytest.raises(Gap, match="B has no head 3: it has 2"):
        received.build(pair.b, pair)


def test_the_first_block_of_a_deep_b_is_no_block_before_the_first() -> None:
    heads = pd.DataFrame({"layer": [0], "head": 0, "metric": "is_sink", "value": [1.0], "n_used": 1, "status": "ok"})
    b = run(run_id="run1", n_layers=5 * LAYERS)
    pair = paired(run(), replace(b, tables={**b.tables, "head_metrics": heads}), by_position(50, 50))
    assert {change.quantity: change for change in changes(pair)}["first block with sinks"].b == 0


def test_what_changed_counts_and_places_what_it_says() -> None:
    a, b = run(), run(run_id="run1")
    tokens = b.tables["token_metrics"].copy()
    nll = tokens["metric"] == "nll"
    tokens.loc[nll, "value"] += 1.0
    tokens.loc[nll & (tokens["pos"] == 7), "value"] += 2.0
    flat = b.tables["massive"].assign(strict=False)
    pair = paired(a, replace(b, tables={**b.tables, "token_metrics": tokens, "massive": flat}), by_position(50, 50))
    rows = {change.quantity: change for change in changes(pair)}
    mean = rows["mean nll, aligned tokens"]
    assert mean.difference == pytest.approx(1.0 + 2 / 49)
    assert (mean.place, mean.where) == ({"position": 7}, "49 tokens; most at position 7 ·mill")
    largest = rows["largest |activation|"]
    assert (largest.a, largest.difference) == (2490.0, 0.0)
    assert largest.place == {"point": 3, "position": 0, "dimension": 7}
    birth = rows["birth of the largest massive entry (point)"]
    assert birth.a == 3
    assert np.isnan(birth.difference)
    assert birth.reason == "B: nothing is strictly massive"
    assert rows["death of the largest massive entry (point)"].reason.startswith("A: it lasts to the last point")
    assert (rows["strictly massive entries"].a, rows["strictly massive entries"].b) == (1, 0)
    assert rows["SAE L0"].reason == "A and B: not read with an SAE"
    assert rows["matrix entropy, normed, mean over points"].reason == "no point has it in both runs"
    assert rows["alpha, normed, mean over points"].difference == 0


def test_what_sets_the_runs_apart_is_one_line() -> None:
    a, b = run(), run(TEXT * 4, "run1")
    edit = Edit("resid", 2, "set", "zero", dims=(5,))
    info = SimpleNamespace(**{**vars(b.info), "mask": "no_sink", "request": SimpleNamespace(edits=(edit,))})
    told = set_apart(paired(a, replace(b, info=info), by_position(50, 40)))
    assert told == f"Differs: mask: all | no_sink · edits: none | {edit} · tokens: 50 | 40, 40 aligned and equal"
    assert set_apart(paired(a, a, by_position(50, 50))) == "A and B are the same run."
    assert set_apart(paired(a, run(run_id="run1"), by_position(50, 50))).startswith("Same model, weights")
