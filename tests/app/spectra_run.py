"""A stored run with spectra, and the spectra of weights, without a model."""

import numpy as np
import pandas as pd
import torch

from analysis.alpha import fit_spectrum
from analysis.preparation import PREPARATIONS
from analysis.spectrum import Spectrum
from probes.request import ProbeCall, RunRequest
from tests.app.fakes import LAYERS, TEXT, WIDTH, FakeResult, fake_result

__all__ = ["RANK", "TOKENS", "layer_metrics", "result", "singular_values", "weight_spectra"]

TOKENS = TEXT * 5
RANK = WIDTH
METRICS = ("alpha_sigma_lowrank", "alpha_sigma_11_100", "alpha_r2", "alpha_curvature", "alpha_tail", "erank_sigma")
METRICS += ("participation_ratio", "stable_rank", "spectral_entropy", "matrix_entropy", "anisotropy", "n_parallel")


def singular_values(point: int) -> np.ndarray:
    return 10 * np.arange(1, RANK + 1.0) ** -(0.4 + 0.1 * point)


def layer_metrics() -> pd.DataFrame:
    rows = []
    for point in range(LAYERS + 1):
        alpha = fit_spectrum(Spectrum(singular_values(point), len(TOKENS), WIDTH)).alpha
        for prep in PREPARATIONS:
            suffix = "" if prep == "normed" else f"@{prep}"
            rows.append((point, f"alpha_sigma{suffix}", alpha, "ok"))
            rows += [(point, f"{name}{suffix}", 1.0 - 0.8 * (point > 3), "ok") for name in METRICS]
        rows += [(point, "alpha_null", 0.25, "ok"), (point, "alpha_null_iid", 0.2, "ok")]
    frame = pd.DataFrame(rows, columns=["layer", "metric", "value", "status"])
    return frame.assign(n_used=len(TOKENS))


def result() -> FakeResult:
    made = fake_result(TOKENS)
    made.info.request = RunRequest("tiny", tuple(range(len(TOKENS))), (ProbeCall("spectral"),))
    rows = [
        pd.DataFrame(
            {"layer": point, "prep": prep, "k": np.arange(1, RANK + 1), "singular_value": singular_values(point)}
        )
        for point in range(LAYERS + 1)
        for prep in PREPARATIONS
    ]
    outliers = pd.DataFrame({"layer": [2], "prep": ["normed"], "k": [1], "eigenvalue": [9.0], "edge": [3.0]})
    made.tables.update(layer_metrics=layer_metrics(), spectra=pd.concat(rows), mp_outliers=outliers)
    correlations = np.sort(np.random.default_rng(0).random((LAYERS + 1, RANK)))[:, ::-1] + 0.1
    correlations *= WIDTH / correlations.sum(axis=1, keepdims=True)
    made.tensors.update(
        spectral_null=torch.ones(LAYERS + 1, 4, RANK, dtype=torch.float64),
        mp_eigenvalues=torch.from_numpy(correlations.copy()),
    )
    return made


def weight_spectra(blocks: range) -> pd.DataFrame:
    values = np.random.default_rng(0).pareto(2, 64) + 1
    parts = [
        pd.DataFrame({"block": block, "matrix": role, "k": np.arange(1, 65), "singular_value": np.sort(values)[::-1]})
        for block in blocks
        for role in ("attn.q", "mlp.out")
    ]
    return pd.concat(parts, ignore_index=True)
