"""Tokens in the plane of the two leading directions of the selected point: what the head of its spectrum is made of."""

from typing import cast

import numpy as np

from analysis.preparation import Preparation
from app.components.extra import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.view import View
from app.figures.projection import token_plane
from app.figures.spectra_layers import PREPARATIONS as NAMES
from app.methods import section
from app.state import select
from probes.request import ProbeCall

__all__ = ["projection_panel"]


def projection_panel(view: View, prep: Preparation) -> None:
    """Draw the plane; a click on a dot selects its token, and the cursor stands at the selected one."""
    point = view.selection.point
    call = ProbeCall("projection", {"point": point, "preparation": prep})
    answer = extra(view, call, label=f"Project the tokens of point {point}", auto=view.loaded)
    if answer is None:
        return
    tokens, layers = answer.table("token_metrics"), answer.table("layer_metrics")
    plane = tokens.pivot(index="pos", columns="metric", values="value").reindex(range(len(view.tokens)))
    x, y = plane["pc1"].to_numpy(dtype="float64"), plane["pc2"].to_numpy(dtype="float64")
    shares = cast(tuple[float, float], tuple(layers.set_index("metric")["value"][["pc1_share", "pc2_share"]]))
    title, question = f"Tokens of point {point}, {NAMES[prep]}", "Which tokens make its two leading directions?"
    status = layers["status"].iloc[0]
    if status != "ok":
        note = f"There is no plane: {status.replace('_', ' ')}."
        panel("spectra-projection", title, question, None, note=note)
        return
    position = view.selection.position
    here = (float(x[position]), float(y[position]))
    left_out = f"The mask leaves out the selected token {position}." if np.isnan(here[0]) else None
    panel(
        "spectra-projection",
        title,
        question,
        view.figure("spectra-projection", lambda: token_plane(x, y, shares, view.tokens), point, prep),
        note=left_out,
        how=section("spectra", "Tokens in the leading plane"),
        csv=plane.reset_index(),
        on_click=_go_token,
        x=None if left_out else here[0],
        y=None if left_out else here[1],
    )


def _go_token(click: PlotClick) -> None:
    if click.customdata is not None:
        select(position=int(click.customdata))
