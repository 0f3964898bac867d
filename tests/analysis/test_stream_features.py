"""Stream features: those of the direct window, summaries of prefixes, detection in time."""

import numpy as np
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.descriptors import describe
from analysis.detection import time_to_detection
from analysis.marchenko_pastur import covariance_eigenvalues, mp_fit
from analysis.preparation import prepare
from analysis.spectrum import spectrum_by_svd
from analysis.stream_features import (
    FEATURES,
    SUMMARIES,
    prefix_summaries,
    rank_features,
    stream_features,
    summarise,
)

H = torch.randn(70, 96, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 97) ** -0.5


def test_each_window_is_what_its_own_tokens_say() -> None:
    keep = torch.ones(70, dtype=torch.bool)
    keep[[0, 30]] = False
    found = stream_features(H, keep, normed=True)
    assert found.shape == (37, len(FEATURES))
    assert np.isfinite(found).all()
    x = prepare(H[keep][20:52], torch.ones(32, dtype=torch.bool), normed=True)
    direct = spectrum_by_svd(x)
    scalars, law = describe(direct), mp_fit(*(lambda v, d: (v, 32, d))(*covariance_eigenvalues(x)))
    row = dict(zip(FEATURES, found[20], strict=True))
    lam = direct.lam
    assert row["ln_lambda_3"] == pytest.approx(np.log(lam[2] / lam.sum()))
    assert row["gap"] == pytest.approx((lam[0] - lam[1]) / lam[0])
    assert row["alpha_sigma"] == pytest.approx(fit_spectrum(direct).alpha)
    assert row["entropy_normalised"] == pytest.approx(scalars.entropy_normalised)
    assert row["participation_ratio"] == pytest.approx(scalars.participation_ratio)
    assert (row["mp_ks"], row["mp_outliers"]) == (pytest.approx(law.ks), law.n_outliers)


def test_short_and_repeated_streams_have_no_features() -> None:
    keep = torch.ones(70, dtype=torch.bool)
    assert stream_features(H[:31], keep[:31], normed=True).shape == (0, len(FEATURES))
    assert np.isnan(summarise(stream_features(H[:31], keep[:31], normed=True))).all()
    assert np.isnan(stream_features(H[:1].repeat(40, 1), keep[:40], normed=True)).all()
    with pytest.raises(ValueError, match="at least 32, not 16"):
        stream_features(H, keep, normed=True, w=16)


def test_summaries_are_mean_slope_and_last_of_every_prefix() -> None:
    features = np.random.default_rng(0).normal(size=(30, len(FEATURES)))
    features[4, 1], features[29, 2], features[:, 3] = np.nan, np.nan, np.nan
    found = prefix_summaries(features)
    assert found.shape == (30, len(SUMMARIES))
    for t in (9, 29):
        for column in range(3):
            known = np.flatnonzero(np.isfinite(features[: t + 1, column]))
            y = features[known, column]
            mean, slope, last = found[t].reshape(3, -1)[:, column]
            assert (mean, last) == (pytest.approx(y.mean()), y[-1])
            assert slope == pytest.approx(np.polyfit(known, y, 1)[0])
    assert np.isnan(found.reshape(30, 3, -1)[:, :, 3]).all()
    assert np.isnan(found[0].reshape(3, -1)[1]).all()  # one window has no slope
    np.testing.assert_array_equal(summarise(features), found[-1])


def test_features_are_ranked_by_their_effect() -> None:
    rng = np.random.default_rng(0)
    positive, negative = (rng.normal(size=(40, len(SUMMARIES))) for _ in range(2))
    positive[:, SUMMARIES.index("gap_last")] -= 2
    found = rank_features(positive, negative)
    assert found["name"][0] == "gap_last"
    assert found["g"][0] == pytest.approx(-2, abs=0.6)
    assert sorted(found["name"]) == sorted(SUMMARIES)


def streams(change_at: int | None, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """80 streams of 60 windows; positive ones move in feature 0 from window ``change_at`` on."""
    rng = np.random.default_rng(seed)
    labels = np.arange(80) % 2 == 0
    made = rng.normal(size=(80, 60, len(FEATURES)))
    if change_at is not None:
        made[labels, change_at:, 0] += 3
    return list(made), labels


def test_a_change_is_detected_after_it_happens_and_seldom_where_it_does_not() -> None:
    made, labels = streams(30)
    found = time_to_detection(made, labels, np.arange(80))
    assert found.status == "ok"
    assert found.detected > 0.6
    assert found.false_alarms < 0.2
    assert 30 < found.median_windows < 55
    never = found.table.loc[~found.table["label"], "detected_at"]
    assert never.isna().mean() == pytest.approx(1 - found.false_alarms)


def test_nothing_to_detect_is_detected_as_seldom_as_false_alarms() -> None:
    found = time_to_detection(*streams(None), np.arange(80))
    assert found.detected < 0.25
    assert found.false_alarms < 0.25


def test_streams_that_cannot_be_used_are_left_out_and_too_few_refused() -> None:
    made, labels = streams(30)
    made[0], made[1] = made[0][:7], made[1] * np.nan
    found = time_to_detection(made, labels, np.arange(80))
    assert found.table["item"].tolist() == list(range(2, 80))
    few = time_to_detection(made[:40], labels[:40], np.arange(40))
    assert (few.status, np.isnan(few.detected), few.table.empty) == ("too_few_prompts", True, True)
