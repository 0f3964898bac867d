"""Pins beside the selection: every number that the run or a stored answer holds is looked up for every column."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from app.components.pins import compared
from app.selection import Pin, Selection
from app.services import Services
from app.view import View
from probes.request import ProbeCall, run_id
from tests.app.fakes import fake_result, fake_services


@pytest.fixture
def held() -> Iterator[Services]:
    made = fake_services(fake_result())
    yield made
    made.close()


def table(view: View, *places: Selection) -> dict[str, tuple[str, ...]]:
    pins = tuple(Pin(colour, place) for colour, place in zip("ogpb", places, strict=False))
    return {row[0]: row[1:] for row in compared(view, pins).rows}


def test_heads_are_named_with_their_block_and_looked_up_for_every_pin(held: Services) -> None:
    view = View(held, held.open("run0"), Selection(point=3, position=4, head=1))
    found = table(view, Selection(point=5, position=9, head=1))
    scores = view.metric("position_head_metrics", "column_score").set_index(["layer", "head", "pos"])["value"]
    for block in (2, 4):
        assert found[f"head {block}.1"] == tuple(f"{scores[block, 1, pos]:.3f}" for pos in (4, 9))
    heads = [name for name in found if name.startswith("head ")]
    assert all("–" not in found[name] for name in heads)


def test_a_latent_that_is_not_stored_of_a_token_says_so(held: Services) -> None:
    result = fake_result()
    result.tables["latents"] = pd.DataFrame(
        {"sae": "s", "layer": 3, "pos": [4, 4, 9], "latent": [7, 8, 7], "activation": [2.0, 1.0, 3.5]}
    )
    view = View(
        held, replace(result, info=SimpleNamespace(**{**vars(result.info), "run_id": "other"})), Selection(3, 4)
    )
    found = table(view, Selection(point=3, position=9))
    assert found["latent 7"] == ("2", "3.5")
    assert found["latent 8"] == ("1", "not in its top 2")


def test_what_the_lens_read_on_the_spot_is_told_of_the_selection_and_the_pin(held: Services) -> None:
    result = held.open("run0")
    bare = {name: rows for name, rows in result.tables.items() if name != "lens_topk"}
    metrics = bare["token_metrics"]
    bare["token_metrics"] = metrics[~metrics["metric"].str.startswith("lens_")]
    view = View(held, replace(result, tables=bare), Selection(point=3, position=4))
    pin = Selection(point=3, position=9)
    before = table(view, pin)["rank of the next"]
    assert before == ("not asked", "not asked")
    for position in (4, 9):
        call = ProbeCall("lens", {"positions": (position,)})
        wanted = run_id(view.info.capture_id, view.info.request.with_probes(call))
        info = SimpleNamespace(**{**vars(result.info), "run_id": wanted})
        held.runner.results[wanted] = replace(result, info=info)
    after = table(view, pin)
    assert "not asked" not in (*after["rank of the next"], *after["entropy, nats"], *after["KL to the end"])
    assert after["reads as (mean-corrected)"][1] != "–"
