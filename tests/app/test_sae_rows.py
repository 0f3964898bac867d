"""The fit of an SAE keeps its meaning whatever version of the probe wrote it."""

import pandas as pd

from app.sae_rows import sae_rows


def test_rows_of_version_1_are_read_by_the_names_of_today() -> None:
    old = pd.DataFrame({"metric": ["alpha", "sae_l0", "sae_l0@no_sink"], "value": [1.0, 2.0, 3.0]})
    assert dict(zip(sae_rows(old)["metric"], sae_rows(old)["value"], strict=True)) == {"sae_l0@all": 2.0, "sae_l0": 3.0}


def test_rows_of_today_stay_as_they_are() -> None:
    new = pd.DataFrame({"metric": ["sae_l0", "sae_l0@all", "nll"], "value": [2.0, 3.0, 4.0]})
    assert sae_rows(new)["metric"].tolist() == ["sae_l0", "sae_l0@all"]
    assert sae_rows(new.iloc[:0]).empty
