"""Panels of the loss over a prompt set: does a metric of a layer go with it?"""

from typing import Any

import numpy as np

from analysis.loss_correlation import MIN_PROMPTS
from app.figures.loss import correlation_lines, loss_dots
from app.panels.panel import POINT, Drawn, Option, panel
from app.set_geometry import BANK, LOSS_METRICS, SetMetric, metric_of_set
from app.view import Gap, View

_OPTIONS: dict[str, Any] = {
    "prompts": Option(str, "geometry-set"),
    "metric": Option(tuple(LOSS_METRICS), "geometry-metric"),
}


@panel("geometry-loss", "geometry", "Correlation with the loss", "Are prompts with a higher number harder to predict?",
       ("geometry", "Loss over prompts"), options=_OPTIONS)  # fmt: skip
def correlation(view: View, prompts: str = BANK, metric: str = "id_gride") -> Drawn:
    found = metric_of_set(view, prompts, metric)
    if found.table["spearman"].isna().all():
        raise Gap(_few(found))
    note = f"{int(found.table['n'].max())} prompts. Partial: after number of tokens and type/token ratio, on ranks."
    gaps = [str(row.layer) for row in found.table.itertuples() if np.isnan(row.spearman)]
    note += f" Points {', '.join(gaps)}: fewer than {MIN_PROMPTS} prompts have the number." if gaps else ""
    return Drawn(correlation_lines(found.table, view.facts.n_layers), note=note, csv=found.table, place=POINT)


@panel("geometry-loss-dots", "geometry", "Prompts of one point", "Which prompts make the correlation?",
       ("geometry", "Loss over prompts"), options=_OPTIONS)  # fmt: skip
def dots(view: View, prompts: str = BANK, metric: str = "id_gride") -> Drawn:
    found, point = metric_of_set(view, prompts, metric), view.selection.point
    values = found.values[:, point]
    if np.isnan(values).all():
        raise Gap(f"No prompt has this number at point {point}: too few distinct tokens.")
    figure = loss_dots(found.prompts, values, LOSS_METRICS[metric])
    return Drawn(figure, f"Prompts at point {point}", csv=found.prompts.assign(point=point, value=values))


def _few(found: SetMetric) -> str:
    n = int(np.isfinite(found.values).any(axis=1).sum())
    return f"{n} of {len(found.prompts)} prompts have this number; a correlation takes {MIN_PROMPTS}."
