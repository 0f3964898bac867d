"""A run without a model: the tables of a small imagined transformer, and a runner that serves it."""

import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from streamlit.testing.v1 import AppTest

from app.services import Services
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest, run_id

__all__ = ["HOSTILE", "TEXT", "FakeRunner", "FakeShelf", "fake_result", "fake_services"]

LAYERS, HEADS, WIDTH = 6, 4, 32
TEXT = (" The", " river", " that", " runs", " past", " the", " old", " mill", "\n", " has")
HOSTILE = ("<script>alert(1)</script>", "$x^2$", ":red[hi]", "**b**", "<|im_start|>", "\u202ertl", "=1+1", "<0xE2>")

FACTS = ModelFacts(
    name="tiny", fingerprint="f" * 16, tokenizer="t" * 16, weights="random", architecture="FakeForCausalLM",
    n_layers=LAYERS, d_model=WIDTH, n_heads=HEADS, n_kv_heads=2, d_head=8, d_mlp=64, d_vocab=100, context=512,
    tied=True, bos_id=1, norm="rms", parallel_blocks=False, softcap=None, windows=(None,) * LAYERS,
    device="cpu", dtype="float32",
)  # fmt: skip


@dataclass(frozen=True)
class FakeResult:
    """The shape of a RunResult."""

    info: Any
    facts: ModelFacts
    tokens: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        return self.tables.get(name, pd.DataFrame())

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]


class FakeRunner:
    """Serves one result, and takes ``seconds`` over it."""

    def __init__(self, result: FakeResult, seconds: float = 0.0) -> None:
        self.results = {result.info.run_id: result}
        self.result = result
        self.seconds = seconds
        self.requests: list[Any] = []

    def run(self, request: Any, progress: Progress) -> FakeResult:
        self.requests.append(request)
        for step in range(10):
            progress.step(step / 10, "imagining")
            time.sleep(self.seconds / 10)
        wanted = run_id(self.result.info.capture_id, request)
        made = replace(self.result, info=SimpleNamespace(**{**vars(self.result.info), "run_id": wanted}))
        self.results[made.info.run_id] = made
        return made

    def open(self, run_id: str) -> FakeResult | None:
        return self.results.get(run_id)


class FakeShelf:
    """A shelf with nothing on it."""

    def loaded(self, name: str) -> None:
        return None


def fake_result(tokens: tuple[str, ...] = TEXT * 5, run_id: str = "run0") -> FakeResult:
    """A stored run of every default probe over ``tokens``."""
    draw = np.random.default_rng(0)
    count = len(tokens)
    info = SimpleNamespace(
        run_id=run_id, capture_id="capture0", model="tiny", fingerprint="f" * 16, weights="random", device="cpu",
        dtype="float32", mask="all", n_tokens=count, cached=True, forward_passes=0, seconds=0.12, peak_bytes=12_000_000,
        versions={}, notes=(), request=RunRequest("tiny", tuple(range(count)), (ProbeCall("tokens"),)),
    )  # fmt: skip
    return FakeResult(
        info,
        FACTS,
        pd.DataFrame({"pos": range(count), "token_id": range(count), "text": tokens}),
        {
            "token_metrics": _token_metrics(draw, count),
            "layer_metrics": _layer_metrics(draw, count),
            "head_metrics": _head_metrics(draw, count),
            "position_head_metrics": _grid(draw, (LAYERS, HEADS, count), ("layer", "head", "pos"), "column_score"),
            "lens_topk": _lens(draw, count),
            "massive": _massive(draw),
            "latents": pd.DataFrame(
                {
                    "sae": "fake-sae",
                    "layer": 3,
                    "pos": np.repeat(np.arange(count), 3),
                    "latent": draw.integers(0, 256, 3 * count),
                    "activation": draw.random(3 * count),
                }
            ),
            "events": pd.DataFrame(
                {
                    "layer": [3, 4],
                    "kind": ["massive_birth", "sinks_begin"],
                    "text": ["block 2: 2,490 born at position 0, dimension 7", "block 3: sinks begin"],
                    "evidence": ['{"position": 0, "dimension": 7}', '{"share": 0.5}'],
                }
            ),
        },
    )


def fake_services(result: FakeResult | None = None, seconds: float = 0.0) -> Services:
    """Services over the fake runner; close them after use."""
    made = result or fake_result()
    runs = pd.DataFrame(columns=["run_id", "model", "n_tokens", "mask"])
    store = SimpleNamespace(close=lambda: None, runs_of=lambda probes, limit, also=(): runs)
    services = Services(store, FakeShelf(), FakeRunner(made, seconds))  # type: ignore[arg-type]
    texts = tuple(made.tokens["text"])
    services.decode = lambda model, token_ids, tokenizer=None: tuple(texts[i % len(texts)] for i in token_ids)  # type: ignore[method-assign]
    return services


def _grid(draw: np.random.Generator, shape: tuple[int, ...], names: tuple[str, ...], metric: str) -> pd.DataFrame:
    places = np.indices(shape).reshape(len(shape), -1)
    frame = pd.DataFrame(dict(zip(names, places, strict=True)))
    return frame.assign(metric=metric, value=draw.random(len(frame)), n_used=1, status="ok")


def _token_metrics(draw: np.random.Generator, count: int) -> pd.DataFrame:
    layered = (
        "resid_norm",
        "lens_kl",
        "lens_kl@mean",
        "lens_rank",
        "lens_rank@mean",
        "lens_entropy",
        "lens_entropy@mean",
    )
    parts = [_grid(draw, (LAYERS + 1, count), ("layer", "pos"), name) for name in layered]
    nll = _grid(draw, (1, count), ("layer", "pos"), "nll").assign(layer=pd.NA)
    nll.loc[0, ["value", "status"]] = [np.nan, "not_applicable"]
    return pd.concat([nll, *parts], ignore_index=True).astype({"layer": "Int64"})


def _layer_metrics(draw: np.random.Generator, count: int) -> pd.DataFrame:
    names = (
        "sink_share",
        "sink_score_mean",
        "sink_uniform",
        "alpha_sigma",
        "alpha_sigma@raw_all",
        "alpha_sigma@raw_no_bos",
        "alpha_null",
        "lens_kl",
        "lens_kl@mean",
        "update_attn_share",
        "update_size",
    )
    return pd.concat([_grid(draw, (LAYERS + 1,), ("layer",), name) for name in names], ignore_index=True)


def _head_metrics(draw: np.random.Generator, count: int) -> pd.DataFrame:
    score = _grid(draw, (LAYERS, HEADS), ("layer", "head"), "sink_score")
    flag = score.assign(metric="is_sink", value=(score["value"] > 0.3).astype(float))
    return pd.concat([score, flag], ignore_index=True)


def _lens(draw: np.random.Generator, count: int) -> pd.DataFrame:
    rows = [
        (point, pos, variant, rank, int(draw.integers(0, 100)), 0.5 / rank)
        for point in range(LAYERS + 1)
        for pos in range(count)
        for variant in ("raw", "mean")
        for rank in range(1, 6)
    ]
    return pd.DataFrame(rows, columns=["layer", "pos", "variant", "rank", "token_id", "prob"])


def _massive(draw: np.random.Generator) -> pd.DataFrame:
    born = [point >= 3 for point in range(LAYERS + 1)]
    return pd.DataFrame(
        {
            "layer": range(LAYERS + 1), "pos": 0, "dim": 7, "value": [2490.0 if b else 4.0 for b in born],
            "median": 0.4, "ratio": 100.0, "strict": born, "relative": born, "robust": born,
        }
    )  # fmt: skip


def told(app: AppTest) -> str:
    """All that a page says outside its figures and tables."""
    return "\n".join(element.value for element in [*app.markdown, *app.caption, *app.warning, *app.error])
