from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cache.connection import connect
from cache.migrations import migrate
from cache.results import TABLES, prepare, prepare_record, read_all, schemas
from cache.tensors import now
from tests.cache.rows import capture, run


@pytest.fixture(scope="module")
def schema() -> Iterator[dict[str, pa.Schema]]:
    connection = connect(None)
    migrate(connection, None)
    read_all(connection)
    yield schemas(connection)
    connection.close()


def metrics(**columns: object) -> pd.DataFrame:
    rows = {"layer": [0, 1], "metric": ["a", "b"], "value": [1.0, 2.0], "n_used": [3, 4], "status": ["ok", "ok"]}
    return pd.DataFrame({**rows, **columns})


def test_every_table_has_a_schema_with_its_owner_first(schema: dict[str, pa.Schema]) -> None:
    owners = {name: schema[name].names[0] for name in TABLES}
    assert {owners.pop("tokens"), owners.pop("weight_spectra"), *owners.values()} == {
        "capture_id",
        "fingerprint",
        "run_id",
    }
    assert schema["layer_metrics"].field("layer").nullable
    assert not schema["head_metrics"].field("layer").nullable


def test_undefined_values_become_null_and_keep_their_status(schema: dict[str, pa.Schema]) -> None:
    table = prepare(
        "layer_metrics", metrics(value=[np.nan, 2.0], status=["too_few_tokens", "ok"]), schema["layer_metrics"]
    )
    assert table["value"].to_pylist() == [None, 2.0]
    assert table["status"].to_pylist() == ["too_few_tokens", "ok"]


@pytest.mark.parametrize("layer", [[0.0, np.nan], [0, None], pd.array([0, None], dtype="Int64")])
def test_a_missing_layer_may_be_written_in_any_way(schema: dict[str, pa.Schema], layer: object) -> None:
    table = prepare("layer_metrics", metrics(layer=layer), schema["layer_metrics"])
    assert table["layer"].to_pylist() == [0, None]


def test_the_order_of_columns_and_narrower_types_do_not_matter(schema: dict[str, pa.Schema]) -> None:
    frame = metrics(
        metric=pd.Categorical(["a", "b"]), value=np.float32([0.5, 1]), n_used=np.int8([3, 4]), layer=np.uint16([0, 1])
    )
    table = prepare("layer_metrics", frame[frame.columns[::-1]], schema["layer_metrics"])
    assert table.equals(prepare("layer_metrics", metrics(value=[0.5, 1.0]), schema["layer_metrics"]))


def test_an_empty_frame_with_the_right_columns_is_a_table(schema: dict[str, pa.Schema]) -> None:
    for name in TABLES:
        assert prepare(name, pd.DataFrame(columns=schema[name].names[1:]), schema[name]).num_rows == 0


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (metrics().drop(columns="status"), "lacks the column 'status'"),
        (metrics(extra=1), "no column 'extra'"),
        (metrics(run_id="r"), "no column 'run_id'"),
        (metrics(layer=[0.5, 1]), "'layer' of layer_metrics must be int32"),
        (metrics(layer=[2**40, 1]), "int32"),
        (metrics(metric=[1, 2]), "'metric' of layer_metrics must be string"),
        (metrics(metric=pd.Series(["a", "\ud800"], dtype=object)), "surrogates"),
        (metrics(metric=["a", None]), "'metric' of layer_metrics has 1 missing values"),
        (metrics(n_used=[3.0, np.nan]), "'n_used' of layer_metrics has 1 missing"),
        (metrics(value=["x", 1]), "'value' of layer_metrics must be double"),
    ],
)
def test_what_does_not_fit_is_named(schema: dict[str, pa.Schema], frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prepare("layer_metrics", frame, schema["layer_metrics"])


def test_a_record_is_completed_and_its_json_made_canonical(schema: dict[str, pa.Schema]) -> None:
    when = now()
    [row] = prepare_record("runs", run(), schema["runs"], when).to_pylist()
    assert row["request"] == '{"a":[1,2.5],"b":2}'
    assert row["versions"] == '{"torch":"2.13.0"}'
    assert row["notes"] == '["one remark"]'
    assert row["created"] == when
    assert row["peak_bytes"] == 1 << 33


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": None}, "'mask' of runs has 1 missing"),
        ({"colour": "red"}, "no column 'colour'"),
        ({"request": "{"}, "Expecting"),
        ({"notes": [float("nan")]}, "finite"),
        ({"seconds": "long"}, "'seconds' of runs must be double"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    schema: dict[str, pa.Schema], change: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        prepare_record("runs", {**run(), **change}, schema["runs"], now())


def test_a_record_needs_its_key(schema: dict[str, pa.Schema]) -> None:
    without = {key: value for key, value in capture().items() if key != "capture_id"}
    with pytest.raises(ValueError, match="lacks 'capture_id'"):
        prepare_record("captures", without, schema["captures"], now())
