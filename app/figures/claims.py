"""Effects of claims, each on a scale of its own: the interval, the control, and the verdict as a colour."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.theme import CATEGORICAL, NULL_GREY, base
from probes.claims.running import Finding

__all__ = ["effect_rows"]

_COLOURS = {"holds": CATEGORICAL[0], "does not hold": CATEGORICAL[1]}
_ROW, _GAP, _TOP = 64, 30, 40  # pixels of a claim, of them for its scale, and for the legend


def effect_rows(findings: Sequence[Finding]) -> go.Figure:
    """One row a finding that has an effect: dot and 95 % interval, the control as a grey diamond.

    Raises ValueError where none has an effect.
    """
    shown = [(one, one.outcome.effect) for one in findings if one.outcome.effect is not None]
    if not shown:
        raise ValueError("none of the findings has an effect to draw")
    drawn = _ROW * len(shown)
    fig = make_subplots(rows=len(shown), cols=1, vertical_spacing=_GAP / drawn)
    named: set[str] = set()
    for row, (one, effect) in enumerate(shown, start=1):
        outcome = one.outcome
        above, below = ((0.0 if end is None else abs(end - effect)) for end in (outcome.high, outcome.low))
        said = [outcome.low, outcome.high, outcome.n, outcome.of]
        fig.add_scatter(
            x=[effect], y=[0], mode="markers", name=outcome.verdict, legendgroup=outcome.verdict,
            showlegend=outcome.verdict not in named, customdata=[said],
            marker={"color": _COLOURS[outcome.verdict], "size": 10},
            error_x={"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "thickness": 2, "width": 5},
            hovertemplate="%{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<br>%{customdata[2]} %{customdata[3]}"
            "<extra>" + outcome.verdict + "</extra>",
            row=row, col=1,
        )  # fmt: skip
        named.add(outcome.verdict)
        if outcome.control is not None:
            fig.add_scatter(
                x=[outcome.control], y=[0], mode="markers", name="control", legendgroup="control",
                showlegend="control" not in named, customdata=[[outcome.control_is]],
                marker={"color": NULL_GREY, "size": 9, "symbol": "diamond-open", "line": {"width": 2}},
                hovertemplate="%{x:.4g}<br>%{customdata[0]}<extra>control</extra>", row=row, col=1,
            )  # fmt: skip
            named.add("control")
    base(fig, height=drawn + _TOP + _GAP)
    fig.update_layout(margin={"t": _TOP, "b": _GAP}, legend={"y": 1, "yref": "container", "yanchor": "top"})
    fig.update_xaxes(tickfont={"size": 10})
    for row, (one, _) in enumerate(shown, start=1):
        label = f"{one.claim.title}<br><i>{one.outcome.unit}</i>"
        fig.update_yaxes(
            tickvals=[0], ticktext=[label], tickfont={"size": 11}, range=[-1, 1], showgrid=False, row=row, col=1
        )
    return fig
