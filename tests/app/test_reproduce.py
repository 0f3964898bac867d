"""The code a reader copies makes the number it stands beside."""

import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.alpha import ESTIMATORS, WINDOWS
from analysis.preparation import PREPARATIONS
from analysis.spectrum import Spectrum
from app.arguments import assignments
from app.reproduce import Convention, command, python, spectrum_at

S = np.arange(1, 151.0) ** -0.6 * np.linspace(1, 0.5, 150)
OBSERVED = Spectrum(S, 151, 300)
CONVENTIONS = [Convention(p, w, e) for p in PREPARATIONS for w in WINDOWS for e in ESTIMATORS]


def tables(status: str = "ok") -> tuple[pd.DataFrame, pd.DataFrame]:
    metrics = [("alpha_sigma" if prep == "normed" else f"alpha_sigma@{prep}") for prep in PREPARATIONS]
    layers = pd.DataFrame({"layer": 3, "metric": metrics, "value": 1.0, "n_used": 151, "status": status})
    rows = [
        pd.DataFrame({"layer": 3, "prep": prep, "k": np.arange(1, 151), "singular_value": S}) for prep in PREPARATIONS
    ]
    return layers, pd.concat(rows).sample(frac=1, random_state=0)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda c: f"{c.prep}-{c.window}-{c.estimator}")
def test_the_python_code_gives_the_number_in_its_comment(
    convention: Convention, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def explore(hf_model: object, tokenizer: object, text: str, **given: object) -> SimpleNamespace:
        asked.append(given)
        return SimpleNamespace(table={"spectra": tables()[1]}.__getitem__)

    monkeypatch.setattr(sys.modules["probes"], "explore", explore, raising=False)
    code = python(convention, 3, OBSERVED, "no_bos")
    names = {"hf_model": None, "tokenizer": None, "text": ""}
    exec(code, names)
    assert f"# {names['fit'].alpha:.4f}," in code
    assert names["fit"].alpha == convention.fit(OBSERVED).alpha
    assert asked == [{"probes": ["spectral"], "mask": "no_bos"}]


def test_an_uncentred_run_says_so_in_both() -> None:
    uncentred = Spectrum(S, 151, 300, centred=False)
    assert '("spectral", {"centre": False})' in python(CONVENTIONS[0], 3, uncentred, "all")
    words = shlex.split(command(CONVENTIONS[0], 3, uncentred, "all", "m"), comments=True)
    assert assignments([words[words.index("--set") + 1]]) == {"spectral": {"centre": False}}


@pytest.mark.parametrize("convention", CONVENTIONS[:8], ids=lambda c: f"{c.window}-{c.estimator}")
def test_the_command_line_names_the_metric_if_there_is_one(convention: Convention) -> None:
    text = command(convention, 3, OBSERVED, "all", "my model; rm -rf /")
    words = shlex.split(text, comments=True)
    assert words[words.index("--model") + 1] == "my model; rm -rf /"
    assert words[words.index("--points") + 1] == "3"
    stored = convention.estimator == "slope" and convention.window != "11_500"
    assert (convention.metric is not None) == stored
    assert (f'"metric": "{convention.metric}"' in text) == stored


def test_a_spectrum_comes_back_out_of_the_tables_in_order() -> None:
    found = spectrum_at(*tables(), 3, "raw_no_bos", 300, centred=True)
    assert found is not None
    np.testing.assert_array_equal(found.s, S)
    assert (found.n, found.d, found.status) == (151, 300, "ok")


def test_a_missing_spectrum_has_its_reason_and_one_not_asked_for_is_none() -> None:
    layers, spectra = tables("rank_deficient")
    found = spectrum_at(layers, spectra.head(0), 3, "normed", 300, centred=True)
    assert found is not None
    assert (found.status, found.rank) == ("rank_deficient", 0)
    assert spectrum_at(layers, spectra, 4, "normed", 300, centred=True) is None
