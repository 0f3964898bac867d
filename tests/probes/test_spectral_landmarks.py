"""Alphas of the embedded model against numbers computed independently (plain eager attention, numpy float64)."""

import numpy as np
import pytest

from analysis.alpha import fit_spectrum
from analysis.descriptors import entropy_collapse
from analysis.preparation import prepare
from analysis.spectrum import spectrum_by_svd
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.probe import Context, Result
from probes.progress import Progress
from probes.prompts import examples
from probes.spectral import Params, run
from tests.probes.captured import CONTEXT, capture_of

pytestmark = pytest.mark.model

# point: normed, raw_all, raw_no_bos, raw_no_bos on ranks 11-100
LANDMARKS = {
    0: (0.5420, 0.5604, 0.5601, 0.4447),
    1: (1.8220, 1.9256, 1.9249, 0.6210),
    6: (0.9166, 0.9640, 0.9583, 0.5446),
    12: (0.8216, 0.9445, 0.8562, 0.5497),
    15: (0.8043, 0.9124, 0.8259, 0.5378),
    18: (0.7589, 0.8530, 0.7689, 0.5134),
    24: (0.7470, 0.8237, 0.7531, 0.5252),
    28: (0.7871, 0.8493, 0.7856, 0.5913),
    30: (0.8605, 0.8837, 0.8588, 0.6617),
}
COLUMNS = ("alpha_sigma", "alpha_sigma@raw_all", "alpha_sigma@raw_no_bos", "alpha_sigma_11_100@raw_no_bos")
NORMED_NO_BOS = {
    0: 0.5405,
    1: 1.8241,
    6: 0.9149,
    12: 0.8216,
    15: 0.8042,
    18: 0.7587,
    24: 0.7470,
    28: 0.7846,
    30: 0.8585,
}


@pytest.fixture(scope="module")
def capture(embedded: LoadedModel) -> Capture:
    captured = capture_of(embedded, examples()[0].text)
    assert captured.n_tokens == 258
    return captured


@pytest.fixture(scope="module")
def found(capture: Capture) -> Result:
    return run(capture, Params(null_draws=2), CONTEXT)


def value(result: Result, layer: int, metric: str) -> float:
    rows = result.tables["layer_metrics"]
    return float(rows[(rows["layer"] == layer) & (rows["metric"] == metric)]["value"].iloc[0])


def test_alpha_by_every_convention(found: Result) -> None:
    for point, expected in LANDMARKS.items():
        for name, number in zip(COLUMNS, expected, strict=True):
            assert value(found, point, name) == pytest.approx(number, rel=1e-3), (point, name)


def test_normed_without_position_0(capture: Capture) -> None:
    params = Params(points=tuple(NORMED_NO_BOS), null_draws=2)
    masked = run(capture, params, Context("no_bos", {}, Progress()))
    for point, number in NORMED_NO_BOS.items():
        assert value(masked, point, "alpha_sigma") == pytest.approx(number, rel=1e-3), point


def test_repeated_tokens_leave_145_directions_at_the_embeddings(found: Result) -> None:
    rows = found.tables["spectra"]
    ranks = rows[rows["prep"] == "normed"].groupby("layer")["k"].max()
    assert (ranks[0], set(ranks[1:])) == (145, {257})


def test_gram_and_svd_agree_on_alpha_to_1e_6(capture: Capture, found: Result) -> None:
    for point in range(31):
        for normed, suffix in ((True, ""), (False, "@raw_all")):
            x = prepare(capture.resid(point), capture.masks.all, normed=normed)
            by_svd = fit_spectrum(spectrum_by_svd(x)).alpha
            assert value(found, point, f"alpha_sigma{suffix}") == pytest.approx(by_svd, abs=1e-6), (point, normed)


def test_position_0_dominates_the_raw_spectrum_and_hardly_moves_the_headline(found: Result) -> None:
    assert value(found, 18, "alpha_sigma@raw_all") - value(found, 18, "alpha_sigma@raw_no_bos") > 0.08
    assert value(found, 18, "top1_energy@raw_all") > 0.99
    assert value(found, 18, "top1_energy") < 0.1


def test_matrix_entropy_collapses_at_the_last_block(found: Result) -> None:
    entropy = np.array([value(found, point, "matrix_entropy") for point in range(31)])
    assert entropy_collapse(entropy) == 30
    assert entropy[30] == pytest.approx(3.92, abs=0.01)
