"""Panels of two runs: every view as A, B and B − A, and what two prompts answer, drawn without a page or a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alignment import Alignment, by_position, by_token
from app.comparable import VIEWS
from app.panels.compare import view_key
from app.panels.pairs import align_options, pair_of
from app.panels.panel import Click
from app.panels.two_prompts import answers, difference_call, patching_call
from app.selection import Selection
from app.view import View
from probes.errors import BadRequest
from probes.request import RunRequest
from tests.app.fakes import LAYERS, TEXT, FakeResult, fake_result
from tests.app.rich_run import SELECTIONS, TOKENS, draw, put, renamed, rich, seen, whole

PROMPTS = ("compare-logits", "compare-patching")
COMPARED = tuple(f"compare-{shown.key}-{part}" for shown in VIEWS for part in "abd")


def two(selection: Selection = SELECTIONS[0]) -> tuple[View, FakeResult]:
    """A view of A with B stored: another text, of which 40 tokens are the same."""
    view, b = seen(rich(), selection), rich((*TEXT * 4, *("x", "y") * 4), "run1")
    b = replace(b, tokens=b.tokens.assign(token_id=b.tokens["token_id"] + 3))
    b.info.request = RunRequest("tiny", tuple(range(3, 51)), b.info.request.probes)
    b.info.capture_id = "capture1"
    view.services.runner.results["run1"] = b  # type: ignore[attr-defined]
    return view, b


@pytest.mark.parametrize("shown", VIEWS, ids=[shown.key for shown in VIEWS])
def test_every_view_of_two_runs_is_drawn_with_its_numbers(shown: Any) -> None:
    view, _ = two()
    every = ({}, {"align": "position"}, {"pairs": [[0, 0], [5, 9, 3]]})
    for selection, options in (*((SELECTIONS[0], one) for one in every), *((one, {}) for one in SELECTIONS[1:])):
        there = replace(view, selection=selection)
        for part in "abd":
            drawn = draw(there, f"compare-{shown.key}-{part}", b="run1", **options)
            if drawn.fig is None:
                assert shown.key in ("massive-lives", "lens-position", "lens-position-rank", "latents-latent"), (
                    drawn.note
                )
                continue
            selects = shown.x is not None or shown.y is not None
            whole(there, drawn, clickable=selects, rows=shown.key != "latents-latent")
            if shown.x is not None:
                assert shown.x in drawn.table().columns
    for part in "ab":
        assert draw(view, f"compare-{shown.key}-{part}", b="run1", shared=False).fig is not None


def test_numbers_of_two_runs_are_those_of_the_store() -> None:
    view, b = two()
    table = draw(view, "compare-tokens-nll-d", b="run1").table()
    for name, run in (("a", view.result), ("b", b)):
        own = run.table("token_metrics").query("metric == 'nll'").set_index("pos")["value"]
        there = table.dropna(subset=name)
        assert len(there) == {"a": 49, "b": 39}[name], "the first token has none, and ten of A have no partner"
        np.testing.assert_allclose(there[name], own[there["position"]].astype("float32"), rtol=1e-6)
    latents = draw(view, "compare-latents-map-a", b="run1").table()
    own = view.table("latents").groupby(["pos", "latent"])["activation"].last()
    for row in latents.itertuples():
        assert own[(row.position, row.latent)] == pytest.approx(row.value, rel=1e-6)


def test_an_alignment_is_told_and_found_again() -> None:
    view, b = two()
    tokens = view.tokens, tuple(b.tokens["text"])
    by_name = {"position": by_position(50, 48), "token": by_token(*tokens)}
    assert align_options(view, b, by_name["token"]) == {}, "the default for other ids"
    assert align_options(view, b, by_name["position"]) == {"align": "position"}
    odd = Alignment(((0, 3), (1, 4), (2, 5), (9, 0)))
    options = align_options(view, b, odd)
    assert options == {"pairs": [[0, 3, 3], [9, 0, 1]]}
    assert pair_of(view, "run1", **options).alignment == odd
    assert len(pair_of(view, "run1", pairs=[]).alignment) == 0


@pytest.mark.parametrize("pairs", [[[0, 99]], [[0]], [3], [["a", "b"]], [[0, 0], [0, 1]], [[0, 0, 1 << 30]], [[-1, 0]]])
def test_pairs_that_cannot_be_are_refused_in_one_sentence(pairs: list[Any]) -> None:
    view, _ = two()
    with pytest.raises(BadRequest, match="These pairs cannot be"):
        draw(view, "compare-sinks-share-a", b="run1", pairs=pairs)


def test_heads_of_a_deeper_b_are_found_at_the_nearest_point_of_a() -> None:
    view, b = two(Selection(3, 9, head=2))
    view.services.runner.results["run1"] = replace(b, facts=replace(b.facts, n_layers=2 * LAYERS, n_heads=8))  # type: ignore[attr-defined]
    drawn = draw(view, "compare-sinks-sink-score-b", b="run1")
    assert drawn.place.at(view.selection) == (2, 5)
    assert drawn.picked(Click(2, 5)) == {"point": 3, "head": 2}
    assert drawn.picked(Click(7, 5)) == {"point": 3}, "a head that A lacks"
    assert "no head of one stands against one of the other" in draw(view, "compare-sinks-sink-score-d", b="run1").note


def test_dimensions_of_another_width_are_its_own() -> None:
    view, b = two(Selection(3, 9))
    b = replace(b, facts=replace(b.facts, d_model=2048))
    states = torch.zeros(48, 2048)
    states[:, 2000] = 9.0
    b.tensors["resid.3"] = states + torch.rand(48, 2048)
    view.services.runner.results["run1"] = b  # type: ignore[attr-defined]
    drawn = draw(view, "compare-massive-entries-b", b="run1")
    rows = [drawn.picked(Click(4, row))["dimension"] for row in range(128)]
    assert 2000 in rows
    assert drawn.place.at(replace(view.selection, dimension=2000))[1] == rows.index(2000)


def test_without_b_a_panel_says_so() -> None:
    view = seen(rich())
    for key in (*COMPARED, *PROMPTS):
        assert draw(view, key).note == "No second run was chosen."
        assert draw(view, key, b="nope").note == "The second run is not in this store."


@pytest.mark.parametrize("selection", SELECTIONS[:2], ids=str)
def test_two_runs_without_tables_give_a_note(selection: Selection) -> None:
    bare = fake_result(TOKENS)
    bare.tables.clear()
    view = seen(bare, selection)
    view.services.runner.results["run1"] = renamed(bare, "run1")  # type: ignore[attr-defined]
    for key in (*COMPARED, *PROMPTS):
        drawn = draw(view, key, b="run1")
        assert drawn.fig is None, key
        assert drawn.note, key
        assert drawn.title, key


def test_the_view_of_a_panel_is_known_by_its_key() -> None:
    assert view_key("compare-sinks-share-d") == "sinks-share"
    assert view_key("compare-logits") is None
    assert all(view_key(f"compare-{shown.key}-b") == shown.key for shown in VIEWS)


def test_two_prompts_answer_and_are_patched() -> None:
    view, b = seen(rich()), rich(TOKENS[::-1], "run1")
    b.info.request = RunRequest("tiny", tuple(range(3, 53)), b.info.request.probes)
    b = replace(b, tokens=b.tokens.assign(token_id=range(3, 53)))
    b.info.capture_id = "capture1"
    view.services.runner.results["run1"] = b  # type: ignore[attr-defined]
    beside = view.beside(b)  # type: ignore[arg-type]
    assert draw(view, "compare-logits", b="run1").note == "This was not asked of the run yet (patching)."
    chosen = answers(view, beside)
    assert chosen is not None
    lines = [(point, "logit_diff", float(point)) for point in range(LAYERS + 1)]
    columns = ["layer", "metric", "value"]
    for one in (view, beside):
        tables = {"layer_metrics": pd.DataFrame(lines, columns=columns)}
        put(one, one.info.request.with_probes(difference_call(*chosen)), tables=tables)
    ends = [(pd.NA, "logit_diff_source", 4.0), (pd.NA, "logit_diff_own", -2.0)]
    place = np.indices((LAYERS + 1, 50)).reshape(2, -1)
    cells = pd.DataFrame({"layer": place[0], "pos": place[1], "metric": "patched_logit_diff", "value": 1.0})
    tables = {"layer_metrics": pd.DataFrame(ends, columns=columns), "token_metrics": cells}
    put(beside, b.info.request.with_probes(patching_call(view, *chosen)), tables=tables)
    for options in ({}, {"target": chosen[0], "versus": chosen[1]}):
        drawn = [draw(view, key, b="run1", **options) for key in PROMPTS]
        for one in drawn:
            whole(view, one)
        assert drawn[0].table().query("run == 'B'")["value"].tolist() == list(range(LAYERS + 1))
        assert drawn[1].note == "Unpatched, the logit difference is 4.00 in A and -2.00 in B."
        assert drawn[1].picked(Click(7, 2)) == {"position": 7, "point": 2}
    assert draw(view, "compare-logits", b="run1", target=1, versus=1).note == "Give two different tokens."
    assert draw(view, "compare-logits", b="run0").note == "A and B are the same run: there is no difference."
    with pytest.raises(BadRequest, match="target must be a token id from 0 to 99"):
        draw(view, "compare-logits", b="run1", target=100, versus=1)
