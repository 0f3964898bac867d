"""An imagined index of an imagined SAE, in a real store in memory, beside an imagined run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.saes.folder import InstalledSAE, SAEInfo, content_digest
from tests.app.fakes import FACTS, HOSTILE, TEXT, FakeResult, fake_services
from tests.app.test_latents_page import INFO, result

__all__ = [
    "CONTENT",
    "DEAD",
    "DENSE",
    "EVIL",
    "LATENTS",
    "N_TOKENS",
    "TOKENS",
    "index_tables",
    "install",
    "put_index",
    "seen",
]

LATENTS, N_TOKENS = 256, 200_000
TOKENS = HOSTILE + TEXT * 3
DEAD, DENSE, RARE = 7, 8, 9
EVIL = "<img src=x onerror=alert(1)> $x$ **b** :red[hi] %{x}"
CONTENT = content_digest(INFO.folder)
_SEQUENCES, _LENGTH = 6, 48


def index_tables() -> dict[str, pd.DataFrame]:
    """Tables of the store for 256 latents over 6 pieces of text of 48 tokens: latent 7 is dead, 8 dense, 9 rare."""
    draw = np.random.default_rng(3)
    n_fired = draw.integers(40, 900, LATENTS)
    n_fired[[DEAD, DENSE, RARE]] = 0, 30_000, 1
    fired = n_fired > 0
    histogram = [
        np.bincount(draw.integers(0, 32, count % 97), minlength=32) if count else np.zeros(32, int) for count in n_fired
    ]
    latents = pd.DataFrame(
        {
            "latent": range(LATENTS), "n_fired": n_fired, "density": n_fired / N_TOKENS,
            "max": np.where(fired, 8.0 + draw.random(LATENTS), np.nan), "mean": np.where(fired, 2.5, np.nan),
            "histogram": histogram, "encoder_cosine": draw.random(LATENTS), "x": draw.normal(size=LATENTS),
            "y": draw.normal(size=LATENTS),
            "label": [f'" river", "{EVIL}" → " mill"' if n == 17 else f'" t{n}" → " w{n}"' for n in range(LATENTS)],
            "precision": np.where(fired, 0.75, np.nan), "recall": np.where(fired, 0.5, np.nan),
        }
    )  # fmt: skip
    latents.loc[DEAD, "label"] = None
    ids = [np.arange(n, n + _LENGTH, dtype=np.int32) for n in range(_SEQUENCES)]
    sequences = pd.DataFrame({"seq": range(_SEQUENCES), "source": "books", "name": EVIL, "token_ids": ids})
    return {
        "sae_sequences": sequences,
        "sae_latents": latents,
        "sae_hits": pd.DataFrame([row for n in np.flatnonzero(fired) for row in _hits(int(n))]),
        "sae_latent_tokens": pd.DataFrame(
            [
                {"latent": n, "rank": rank, "token_id": (n + rank) % len(TOKENS), "mean_activation": 5.0 / rank,
                 "n_fired": 4, "n_seen": 9}
                for n in np.flatnonzero(fired) for rank in (1, 2, 3)
            ]
        ),
        "sae_neighbours": pd.DataFrame(
            [
                {"latent": n, "kind": kind, "rank": rank, "other": (n + step * rank) % LATENTS, "value": 0.9 / rank}
                for n in range(LATENTS) for kind, step in (("decoder", 1), ("coactive", 2), ("phi", 3))
                for rank in range(1, 6) if kind == "decoder" or n != DEAD
            ]
        ),
    }  # fmt: skip


def _hits(latent: int) -> list[dict[str, Any]]:
    rows = []
    for kind, count in (("top", _SEQUENCES), ("quantile", 10)):
        for rank in range(1, count + 1):
            seq, pos = rank % _SEQUENCES, (latent + 5 * rank) % _LENGTH
            first, last = max(pos - 20, 0), min(pos + 21, _LENGTH)
            around = np.zeros(last - first, dtype=np.float32)
            around[pos - first] = 8.0 / rank
            rows.append(
                {"latent": latent, "kind": kind, "rank": rank, "seq": seq, "pos": pos, "activation": 8.0 / rank,
                 "first": first, "activations": around}
            )  # fmt: skip
    return rows


def put_index(store: Store, **changes: Any) -> str:
    """Store the index of the imagined SAE, made with the model of the imagined run."""
    row = {
        "sae": INFO.name, "content": CONTENT, "fingerprint": FACTS.fingerprint, "model": FACTS.name, "layer": INFO.point,
        "corpus": "some <b>books</b>", "n_sequences": _SEQUENCES, "context": _LENGTH, "n_tokens": N_TOKENS,
        "n_left_out": 6, "seed": 0, "params": {"top": 20},
    }  # fmt: skip
    return store.put_sae_index(row | changes, index_tables())


def install(monkeypatch: pytest.MonkeyPatch, *infos: SAEInfo) -> None:
    """Let the pages find these SAEs, by default the imagined one, and no other."""
    found = tuple(InstalledSAE(info.name, info.folder, info, None) for info in (infos or (INFO,)))
    for module in ("app.sae_index", "app.panels.latents", "app.views.latent", "app.views.find", "app.views.latents"):
        monkeypatch.setattr(f"{module}.installed_saes", lambda: found)


def stocked(store: Store, shown: FakeResult | None = None) -> Services:
    """Services over an imagined run with a real store."""
    held = fake_services(shown or result())
    held.store = store
    return held


def seen(store: Store, selection: Selection | None = None, shown: FakeResult | None = None) -> View:
    """A view of the imagined run, over a real store."""
    made = shown or result()
    return View(stocked(store, made), made, selection or Selection(3, 6, latent=17))


def other_sae(folder: Path) -> SAEInfo:
    """An SAE like the imagined one, of another name and with other weights."""
    return replace(INFO, name="other", folder=folder)
