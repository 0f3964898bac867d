"""An imagined run that the panels of changes and of two runs find all their tables in, and how a panel of it is looked at."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from app.panels import registry
from app.panels.interventions import MEASURES
from app.panels.panel import Click, Drawn
from app.panels.sinks import COSINES, HEAD_METRICS
from app.selection import Selection
from app.view import View, run_bounds
from probes.request import RunRequest, capture_id, run_id
from tests.app import spectra_run
from tests.app.fakes import HEADS as N_HEADS
from tests.app.fakes import LAYERS, TEXT, FakeResult, fake_result, fake_services
from tests.app.test_massive_page import result as massive_run

__all__ = ["SELECTIONS", "TOKENS", "draw", "head_table", "put", "renamed", "rich", "seen", "whole"]

TOKENS = TEXT * 5
SOME = int(fake_result(TOKENS).tables["latents"]["latent"].iloc[30])  # a latent that fires
SELECTIONS = (
    Selection(3, 9, latent=SOME),
    Selection(0, 0, head=2, dimension=7),
    Selection(LAYERS, 20, head=1, dimension=9, first=3, span=(4, 8)),
)


def rich(tokens: tuple[str, ...] = TOKENS, run: str = "run0") -> FakeResult:
    """An imagined run that every panel here finds its tables in."""
    made = _rich(tokens)
    return renamed(replace(made, tables=dict(made.tables), tensors=dict(made.tensors)), run)


@cache
def _rich(tokens: tuple[str, ...]) -> FakeResult:
    made, draw, count = massive_run(tokens), np.random.default_rng(2), len(tokens)
    plain = fake_result(tokens)
    fit = pd.DataFrame({"layer": 3, "pos": range(count), "value": draw.random(count), "n_used": 1, "status": "ok"})
    heads = fit.assign(layer=pd.NA, metric="sink_heads", value=[3.0, *[0.0] * (count - 1)]).astype({"layer": "Int64"})
    made.tables["token_metrics"] = pd.concat(
        [
            plain.tables["token_metrics"],
            *(fit.assign(metric=name) for name in ("sae_l0", "sae_explained_variance")),
            *(
                plain.tables["token_metrics"].query("metric == 'lens_kl'").assign(metric=name)
                for name in ("lens_top1_nlp", "lens_top1_nlp@mean", *(f"bos_cosine_{kind}" for kind in COSINES))
            ),
            heads,
        ],
        ignore_index=True,
    )
    scores = plain.tables["head_metrics"]
    more = [scores.query("metric == 'sink_score'").assign(metric=name) for name in HEAD_METRICS if name != "sink_score"]
    made.tables["head_metrics"] = pd.concat([scores, *more], ignore_index=True)
    shares = plain.tables["layer_metrics"]
    own = [made.tables["layer_metrics"], shares[shares["metric"].str.startswith(("sink_", "lens_", "update_"))]]
    made.tables["layer_metrics"] = pd.concat([*own, spectra_run.layer_metrics()], ignore_index=True)
    made.tables["spectra"] = spectra_run.result().tables["spectra"]
    made.tensors["no_sink"] = (torch.arange(count) > 0).to(torch.uint8)
    made.tensors["attention.column_sum"] = torch.ones(LAYERS, N_HEADS, count, dtype=torch.float64)
    made.tensors["spectral_null"] = torch.ones(LAYERS + 1, 4, spectra_run.RANK, dtype=torch.float64)
    request = RunRequest("tiny", tuple(range(count)), made.info.request.probes)
    return renamed(made, "run0", request=request, notes=())


def renamed(shown: FakeResult, run: str, **info: Any) -> FakeResult:
    return replace(shown, info=SimpleNamespace(**{**vars(shown.info), "run_id": run, **info}))


def put(view: View, request: RunRequest, **parts: Any) -> FakeResult:
    """Store an answer to a request about the model of ``view``."""
    mine = view.info.request
    same = request.token_ids == mine.token_ids and request.edits == mine.edits
    capture = view.info.capture_id if same else capture_id(view.facts, request.token_ids, request.edits)
    empty = {"tables": {}, "tensors": {}}
    made = replace(renamed(view.result, run_id(capture, request), request=request), **{**empty, **parts})  # type: ignore[type-var, arg-type]
    view.services.runner.results[made.info.run_id] = made  # type: ignore[attr-defined]
    return made


def head_table() -> dict[str, pd.DataFrame]:
    place = np.indices((LAYERS, N_HEADS)).reshape(2, -1)
    rows = pd.DataFrame({"layer": place[0], "head": place[1], "n_used": 49, "value": np.arange(place.shape[1]) / 10.0})
    return {"head_metrics": pd.concat([rows.assign(metric=name) for name in MEASURES], ignore_index=True)}


def seen(shown: FakeResult, selection: Selection = SELECTIONS[0]) -> View:
    held = fake_services(shown)
    held.tokenizer = lambda model: None  # type: ignore[method-assign]
    return View(held, shown, selection)


def draw(view: View, key: str, **options: Any) -> Drawn:
    return registry.panel(key).draw(view, options)


def clicks(drawn: Drawn) -> Iterator[Click]:
    """The first and the last point or cell of every trace."""
    assert drawn.fig is not None
    for curve, trace in enumerate(drawn.fig.data):
        if trace.hoverinfo == "skip" or (trace.type != "heatmap" and not np.size(trace.x)):
            continue
        shape = np.shape(trace.z) if trace.type == "heatmap" else (len(trace.x),)
        for place in (np.zeros(len(shape), dtype=int), np.array(shape) - 1):
            x = place[-1] if trace.x is None else trace.x[place[-1]]
            y = place[0] if trace.y is None else trace.y[place[0]]
            told = None if trace.customdata is None else np.asarray(trace.customdata)[tuple(place)]
            yield Click(x, y, told, curve)


def whole(view: View, drawn: Drawn, *, clickable: bool = True, rows: bool = True) -> None:
    """A figure, a table with rows, and clicks that select something within the run."""
    assert drawn.fig is not None, drawn.note
    table = drawn.table()
    assert isinstance(table, pd.DataFrame)
    assert len(table) or not rows
    assert drawn.clickable == clickable
    limits = run_bounds(view.result)
    for click in clicks(drawn):
        for part, value in drawn.picked(click).items():
            assert value is not None
            assert 0 <= value <= getattr(limits, part), (part, value)
