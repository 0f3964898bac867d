"""The Overview's panel: all signals of a run on one axis of points."""

import pandas as pd

from app.figures.overview import event_points, overview
from app.panels.panel import POINT, Drawn, panel
from app.text import markdown
from app.view import View

__all__ = ["events_of"]


def events_of(view: View) -> pd.DataFrame:
    """The events of a run from the first point to the last, then those that found nothing: the numbers people see."""
    events = view.table("events")
    if events.empty:
        return events
    return events.sort_values(["layer", "kind", "text"], na_position="last").reset_index(drop=True)


@panel(
    "overview-layers",
    "overview",
    "All signals by layer",
    "Where along the model does each signal change, and do they change together?",
    ("overview", "Layers on one axis"),
)
def layers(view: View) -> Drawn:
    rows, massive, events = view.table("layer_metrics"), view.table("massive"), events_of(view)
    figure = view.figure(
        "overview", lambda: overview(n_layers=view.facts.n_layers, massive=massive, layers=rows, events=events)
    )
    told = "; ".join(
        f"{number} point {point}: {markdown(events.iloc[number - 1]['text'])}" for number, point in event_points(events)
    )
    aside = f"Events: {told}." if told else "Events: none of the rules found anything in this run."
    return Drawn(figure, f"Layers 0 to {view.facts.n_layers}", csv=rows, place=POINT, aside=aside)
