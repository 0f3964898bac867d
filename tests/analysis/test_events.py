"""The rules of events on tables with known answers."""

import json

import numpy as np
import pandas as pd

from analysis.events import KINDS, find_events


def layers(metric: str, values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"layer": range(len(values)), "metric": metric, "value": values, "n_used": 9, "status": "ok"})


def tables() -> dict[str, pd.DataFrame]:
    values = [1.0, 2.0, 3.0, 900.0, 25000.0, 24000.0, 5.0]
    entries = pd.DataFrame({"layer": range(7), "pos": 0, "dim": 7, "value": values, "median": 1.0})
    entries = entries.assign(ratio=entries["value"], strict=entries["value"] >= 1000, relative=False, robust=True)
    heads = pd.DataFrame(
        {"layer": [0, 0, 1, 1, 2, 2], "head": [0, 1] * 3, "metric": "is_sink", "value": [0, 0, 0, 1, 1, 1.0]}
    )
    depth = pd.DataFrame({"layer": None, "pos": range(4), "metric": "lens_depth@mean", "value": [2.0, 3.0, 5.0, 6.0]})
    return {
        "massive": entries,
        "massive_events": pd.DataFrame(
            [{"pos": 0, "dim": 7, "birth": 4, "death": 6, "attn_delta": 10.0, "mlp_delta": 24100.0}]
        ),
        "massive_neurons": pd.DataFrame(
            {"pos": 0, "dim": 7, "layer": 3, "neuron": [11, 5, 2], "contribution": [18000.0, 6000.0, 3.0]}
        ),
        "head_metrics": heads,
        "token_metrics": depth,
        "layer_metrics": pd.concat(
            [
                layers("matrix_entropy", [4.0, 4.01, 3.99, 2.0, 2.01, 2.0, 1.99]),
                layers("update_size", [np.nan, 9.0, 0.3, 0.2, 0.8, 0.1, 0.1]),
            ]
        ),
    }


def found(kind: str, given: dict[str, pd.DataFrame]) -> tuple[object, str, dict]:
    events = find_events(given)
    row = events[events["kind"] == kind].iloc[0]
    return row["layer"], row["text"], json.loads(row["evidence"])


def test_birth_names_value_place_and_the_two_neurons_that_wrote_it() -> None:
    layer, text, evidence = found("massive_birth", tables())
    assert layer == 4
    assert text == "25,000 born at position 0, dimension 7, written by the MLP (neurons 11, 5)"
    assert evidence["neurons"] == [11, 5]
    assert (evidence["position"], evidence["dimension"]) == (0, 7)


def test_death_is_the_first_point_without_it() -> None:
    assert found("massive_death", tables())[0] == 6


def test_births_are_strict_whatever_criterion_the_run_asked_for() -> None:
    given = tables()
    given["massive_events"] = given["massive_events"].assign(birth=0, death=pd.NA)
    layer, text, _ = found("massive_birth", given)
    assert (layer, text) == (4, "25,000 born at position 0, dimension 7"), "another span's writers are not this one's"


def test_what_lasts_is_said_of_all_births_not_of_the_five_shown() -> None:
    given = tables()
    last = given["massive"].assign(strict=given["massive"]["layer"] >= 4)
    many = [last.assign(dim=dim, value=last["value"] * 10) for dim in range(10, 15)]
    given["massive"] = pd.concat([given["massive"], *many])
    assert found("massive_death", given)[1] == "the largest of them last to the last point"


def test_an_entropy_that_is_undefined_or_has_gaps_is_no_missing_collapse() -> None:
    for entropy in (layers("matrix_entropy", [np.nan] * 7), layers("matrix_entropy", [4.0] * 7).iloc[::2]):
        assert found("entropy_collapse", tables() | {"layer_metrics": entropy})[1].startswith("undefined")


def test_sinks_begin_at_the_first_block_with_a_sink_head_shown_at_its_output() -> None:
    layer, text, evidence = found("sinks_begin", tables())
    assert (layer, evidence["block"], evidence["sink_heads"]) == (2, 1, 1)
    assert "1 of 2 heads" in text


def test_collapse_depth_and_update() -> None:
    assert found("entropy_collapse", tables())[0] == 3
    assert found("lens_decides", tables())[0] == 4  # half of the positions: between 3 and 5
    assert found("largest_update", tables())[0] == 4  # block 0 writes onto the embeddings and does not count


def test_a_rule_that_finds_nothing_says_so() -> None:
    quiet = tables()
    quiet["massive"] = quiet["massive"].assign(strict=False)
    quiet["head_metrics"] = quiet["head_metrics"].assign(value=0.0)
    quiet["layer_metrics"] = layers("matrix_entropy", [2.0] * 7)
    assert found("massive_birth", quiet)[0] is pd.NA
    assert "no strictly massive" in found("massive_birth", quiet)[1]
    assert "no head is a sink" in found("sinks_begin", quiet)[1]
    assert "no collapse" in found("entropy_collapse", quiet)[1]
    short = {"head_metrics": tables()["head_metrics"].assign(value=np.nan)}
    assert "too few tokens" in found("sinks_begin", short)[1]


def test_every_rule_answers_even_when_no_probe_was_asked() -> None:
    events = find_events({})
    assert set(events["kind"]) == set(KINDS)
    assert events["layer"].isna().all()
