"""A capture, runs of it, and small tables: what a store is filled with in tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cache import Store

__all__ = ["capture", "filled", "resid", "run", "tables"]


def capture(capture_id: str = "c0") -> dict[str, Any]:
    return {
        "capture_id": capture_id,
        "fingerprint": "weights-1",
        "tokenizer": "bytes",
        "dtype": "float32",
        "n_tokens": 3,
        "edits": [],
        "facts": {"name": "tiny", "n_layers": 2},
    }


def run(run_id: str = "r0", capture_id: str = "c0") -> dict[str, Any]:
    return {
        "run_id": run_id,
        "capture_id": capture_id,
        "model": "tiny",
        "fingerprint": "weights-1",
        "weights": "random",
        "device": "cpu",
        "dtype": "float32",
        "mask": "all",
        "n_tokens": 3,
        "forward_passes": 1,
        "seconds": 0.25,
        "peak_bytes": 1 << 33,
        "tensors": [],
        "versions": {"torch": "2.13.0"},
        "request": '{"b": 2, "a": [1, 2.5]}',
        "notes": ("one remark",),
    }


def tables(seed: int = 0) -> dict[str, pd.DataFrame]:
    values = np.random.default_rng(seed).standard_normal(4)
    return {
        "tokens": pd.DataFrame({"pos": [0, 1, 2], "token_id": [1, 70, 71], "text": ["<|im_start|>", " a", "'; --"]}),
        "layer_metrics": pd.DataFrame(
            {
                "layer": [0, 1, None],
                "metric": ["alpha_sigma", "alpha_sigma", "nll"],
                "value": [values[0], np.nan, values[1]],
                "n_used": [3, 0, 2],
                "status": ["ok", "rank_deficient", "ok"],
            }
        ),
        "spectra": pd.DataFrame(
            {"layer": 0, "prep": "normed", "k": np.arange(1, 5), "singular_value": np.sort(np.abs(values))[::-1]}
        ),
    }


def resid(n_tensors: int = 3, n_values: int = 1000, seed: int = 0, owner: str = "c0") -> dict[tuple[str, str], Tensor]:
    """Tensors as a capture leaves them: one for each point."""
    generator = torch.Generator().manual_seed(seed)
    return {(owner, f"resid.{i}"): torch.randn(n_values, generator=generator) for i in range(n_tensors)}


def filled(path: Path | str, n_runs: int = 2, **tensors: int) -> None:
    """A closed store with one capture, its tensors, and runs r0, r1, ... whose tables differ."""
    with Store.open(path) as store:
        for index in range(n_runs):
            store.write_run(run(f"r{index}"), tables(index), resid(**tensors) if index == 0 else {}, capture())
