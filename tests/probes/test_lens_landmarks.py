"""The lens of the embedded model against numbers computed independently (plain eager attention, numpy float64)."""

import pandas as pd
import pytest
import torch

from probes.lens import Params, run
from probes.model.bank import MeanBank
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.prompts import examples
from tests.probes.captured import CONTEXT, capture_of

pytestmark = pytest.mark.model

# point: KL to the final layer and entropy, raw, then mean-corrected; nats, means over the passage without position 0
LANDMARKS = {
    0: (101.451, 0.057, 4.333, 3.756),
    12: (17.422, 0.931, 3.857, 3.771),
    15: (17.213, 0.921, 3.766, 3.815),
    28: (3.296, 1.108, 1.246, 2.252),
    30: (0.0, 3.142, 0.0, 3.142),
}
PARAMS = Params(points=tuple(LANDMARKS), positions="all", top_k=1)


@pytest.fixture(scope="module")
def capture(embedded: LoadedModel) -> Capture:
    captured = capture_of(embedded, examples()[0].text)
    assert captured.n_tokens == 258
    return captured


def check(layers: pd.DataFrame, suffix: str, column: int, rel: float) -> None:
    for point, expected in LANDMARKS.items():
        for offset, metric in enumerate(("lens_kl", "lens_entropy")):
            row = layers[(layers["layer"] == point) & (layers["metric"] == metric + suffix)].iloc[0]
            assert row["value"] == pytest.approx(expected[column + offset], rel=rel, abs=6e-4), (point, metric)
            assert row["n_used"] == 257


def test_raw_and_own_mean_lens_reproduce_the_landmarks(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The landmarks were corrected by means of the passage itself, so the bank is replaced by those."""
    means = torch.stack([capture.resid(point)[1:].double().mean(0) for point in range(31)]).float()
    monkeypatch.setattr(
        LoadedModel, "mean_bank", lambda self, progress: MeanBank({}, {"resid": means}, 257, 1, "the passage")
    )
    layers = run(capture, PARAMS, CONTEXT).tables["layer_metrics"]
    check(layers, "", 0, rel=1e-3)
    check(layers, "@mean", 2, rel=1e-3)


def test_the_shipped_bank_says_nearly_the_same(capture: Capture) -> None:
    """Means of other text correct less than the passage's own; measured 13-25 % more KL at these points."""
    layers = run(capture, PARAMS, CONTEXT).tables["layer_metrics"]
    check(layers, "@mean", 2, rel=0.3)
