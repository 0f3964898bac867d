"""Panels of SAE quality: every SAE measured on the model of the run, side by side."""

from collections.abc import Callable, Mapping

import pandas as pd
import plotly.graph_objects as go

from app.figures.quality import density_bars, l0_bars, position_lines, source_bars
from app.panels.panel import Drawn, Option, panel
from app.quality import fitting, measured
from app.view import Gap, View

__all__ = ["measured_of"]

_ONLY = {"sae": Option(str, "quality-only")}
_NOTHING = "No SAE that fits this model has been measured yet."


def measured_of(view: View, sae: str = "") -> Mapping[str, pd.DataFrame]:
    """The newest measurement of every SAE that fits, or of one. Raises Gap where there is none."""
    store = view.services.store
    chosen = {name: info for name, info in fitting(view.facts).items() if sae in ("", name)}
    every = {name: measured(store, view.facts, info) for name, info in chosen.items()}
    found = {name: next(iter(corpora.values())) for name, corpora in every.items() if corpora}
    if not found:
        raise Gap(_NOTHING)
    return found


@panel("quality-density", "quality", "How often latents fire", "How many are rare, dense, or never fire?",
       ("quality", "Density"), options=_ONLY)  # fmt: skip
def density(view: View, sae: str = "") -> Drawn:
    return _drawn(view, sae, density_bars, ("sae_density", "sae_never_fired"))


@panel("quality-l0", "quality", "Active latents of a token", "How many latents does a token take?",
       ("quality", "L0"), options=_ONLY)  # fmt: skip
def active(view: View, sae: str = "") -> Drawn:
    return _drawn(view, sae, l0_bars, ("sae_l0_count",))


@panel("quality-position", "quality", "Fit by position", "Are early and late tokens rebuilt alike?",
       ("quality", "By position and source"), options=_ONLY)  # fmt: skip
def by_position(view: View, sae: str = "") -> Drawn:
    return _drawn(view, sae, position_lines, ("sae_explained_variance_by_pos",))


@panel("quality-source", "quality", "Fit by source", "Which kinds of text are rebuilt worst?",
       ("quality", "By position and source"), options=_ONLY)  # fmt: skip
def by_source(view: View, sae: str = "") -> Drawn:
    return _drawn(view, sae, source_bars, ("sae_explained_variance:",))


def _drawn(
    view: View, sae: str, draw: Callable[[Mapping[str, pd.DataFrame]], go.Figure], metrics: tuple[str, ...]
) -> Drawn:
    found = measured_of(view, sae)
    rows = pd.concat([frame[frame["metric"].str.startswith(metrics)] for frame in found.values()])
    if rows.empty:
        raise Gap("This was not measured.")
    return Drawn(draw(found), csv=rows.drop(columns="created"))
