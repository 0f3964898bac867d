"""The strip of the open run: which number colours it, and what a click does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from jaxtyping import Bool

from app.components.token_strip import token_strip
from app.figures.strip_scale import Kind, Scale, scale_of
from app.selection import COLOURS
from app.state import pins, select
from app.view import SIGHT, View

__all__ = ["choose", "kind_of", "metric_name", "offered", "ordinary", "strip", "token_values"]

_NAMES = {
    "nll": "surprise of the token (nll, nats)",
    "resid_norm": "norm of the state",
    "sink_heads": "heads using it as a sink",
    "bos_cosine_raw": "cosine to the first token",
    "bos_cosine_centred": "cosine to the first token, centred",
    "bos_cosine_nomassive": "cosine to the first token, massive dimensions out",
    "sae_explained_variance": "variance the SAE explains",
    "sae_l0": "active latents",
    "lens_kl": "lens KL to the end",
    "lens_kl_reverse": "lens KL from the end",
    "lens_entropy": "lens entropy",
    "lens_rank": "lens rank of the next token",
    "lens_rank_control": "lens rank of another position's next token",
    "lens_js": "lens Jensen-Shannon divergence to the end",
    "lens_ce": "lens surprise of the next token",
    "lens_ce_final": "lens surprise of the final answer",
    "lens_top1_nlp": "lens -ln p of its top token",
    "lens_depth": "point where the lens settles",
    "lens_first_nat": "point from which the lens is within 1 nat",
    "lens_monotonicity": "share of steps that lower the lens surprise",
    "lens_convergence": "rate at which the lens converges",
    "lens_ce_area": "area under the lens surprise",
}
_VARIANTS = {"mean": "mean-corrected", "tuned": "tuned", "tail": "tail", "no_norm": "without final norm", "": "raw"}
_DIVERGING = {"bos_cosine_raw", "bos_cosine_centred", "bos_cosine_nomassive"}
_COUNTS = {"sink_heads"}


def strip(view: View, colour_by: str) -> None:
    """Draw the text of the run, coloured by the metric chosen on this page, at first ``colour_by``."""
    known = view.memo("strip metrics", lambda: offered(view.table("token_metrics")))
    remembered = f"_strip-{colour_by}"
    chosen = st.session_state.get(remembered, colour_by)
    values, missing, scale = None, "", None
    with st.container(key="strip", gap="xxsmall"):
        if known:
            chosen = st.selectbox(
                "Colour tokens by",
                known,
                known.index(chosen) if chosen in known else 0,
                format_func=metric_name,
                label_visibility="collapsed",
                key=f"strip-by-{colour_by}",
                width=340,
            )
            st.session_state[remembered] = chosen
            point = view.selection.point
            values, missing, scale = view.memo(("strip", chosen, point), lambda: _scaled(view, chosen))
        token_strip(
            "token-strip",
            view.tokens,
            view.result.tokens.sort_values("pos")["token_id"].tolist(),
            identity=view.info.capture_id,
            values=values,
            metric=chosen if values is not None else "",
            missing=missing,
            scale=scale,
            special=view.special,
            selected=view.selection.position,
            on_select=choose,
            span=view.selection.span,
            pinned=[(pin.selection.position, COLOURS[pin.colour]) for pin in pins()],
            layers=(view.selection.point, view.facts.n_layers),
        )
        if len(view.tokens) > SIGHT:
            _in_sight(view)


def choose(chosen: Mapping[str, Any]) -> None:
    """Select what was chosen in a strip; Esc lets everything go but the point."""
    parts = dict(chosen)
    if parts.pop("released", False):
        parts |= dict.fromkeys(("head", "dimension", "latent"))
    select(**parts)


def _in_sight(view: View) -> None:
    """Which stretch of a long text the panels draw."""
    first, shown = view.sight()
    last = len(view.tokens) - SIGHT
    st.session_state["strip-from"] = first
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="sight"):
        st.caption(
            f"Panels draw tokens {first:,} to {first + len(shown) - 1:,} of {len(view.tokens):,}"
            f"{', the stretch of the selected one' if view.selection.first is None else ''}."
        )
        st.slider(
            "First token in sight", 0, last, key="strip-from", on_change=_look, label_visibility="collapsed", width=320,
        )  # fmt: skip
        if view.selection.first is not None:
            st.button(
                "Follow the selection", on_click=select, kwargs={"first": None}, type="tertiary", key="sight-follow"
            )


def _look() -> None:
    select(first=int(st.session_state["strip-from"]))


def offered(metrics: pd.DataFrame) -> list[str]:
    """Metrics with a name for people, in their order; of a lens, mean-corrected first."""
    names, variants = list(_NAMES), list(_VARIANTS)
    there = [] if metrics.empty else metrics["metric"].unique().tolist()
    parts = {metric: metric.partition("@")[::2] for metric in there}
    named = [metric for metric in there if parts[metric][0] in _NAMES]
    return sorted(named, key=lambda metric: (names.index(parts[metric][0]), variants.index(parts[metric][1])))


def metric_name(metric: str) -> str:
    """A metric of :func:`offered` as people read it."""
    base, _, variant = metric.partition("@")
    return f"{_NAMES[base]} ({_VARIANTS[variant]})" if base.startswith("lens_") else _NAMES[base]


def kind_of(metric: str) -> Kind:
    """How a metric of :func:`offered` is coloured."""
    return "diverging" if metric in _DIVERGING else "count" if metric in _COUNTS else "sequential"


def ordinary(view: View) -> Bool[np.ndarray, "token"]:
    """Tokens that set the limits of colours: all but position 0, and no sinks where the run kept which those are."""
    found = np.arange(len(view.tokens)) > 0
    mask = view.kept("no_sink")
    return found if mask is None else found & mask.numpy().astype(bool)


def _scaled(view: View, metric: str) -> tuple[np.ndarray, str, Scale]:
    values, missing = token_values(view, metric)
    return values, missing, scale_of(values, kind_of(metric), kept=ordinary(view))


def token_values(view: View, metric: str) -> tuple[np.ndarray, str]:
    """One number a position (NaN: missing, with the reason), at the selected point where the metric has several."""
    rows = view.metric("token_metrics", metric)
    layers = rows["layer"].dropna().unique()
    if len(layers) > 1:
        rows = rows[rows["layer"] == view.selection.point]
    values = np.full(len(view.tokens), np.nan)
    values[rows["pos"].to_numpy(dtype=int)] = pd.to_numeric(rows["value"]).to_numpy(dtype=float)
    if rows.empty:
        return values, f"not computed at point {view.selection.point}"
    reasons = rows.loc[rows["value"].isna(), "status"].dropna().unique()
    return values, ", ".join(str(reason).replace("_", " ") for reason in reasons) or "not asked at this position"
