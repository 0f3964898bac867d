"""Panels of what is fitted over a prompt set: linear maps of blocks, tokens of the shown text off them, words recalled."""

import pandas as pd

from analysis.contextual_recall import MIN_TEXTS, WINDOW
from analysis.linearity import TOKENS_A_DIMENSION
from app.figures.geometry import metric_rows
from app.figures.linearity import SCORES, nonlinearity_map, recall_lines, score_lines
from app.panels.panel import CELL, POINT, Drawn, Option, panel
from app.set_geometry import BANK, over_corpus
from app.view import Gap, View

__all__ = ["DISTANCES"]

_SET = {"prompts": Option(str, "geometry-set")}
DISTANCES = {"relative": "relative to the token", "absolute": "absolute"}


@panel("geometry-linearity", "geometry", "Linearity of blocks", "How much of what a block makes is a linear map of its input?",
       ("geometry", "Linearity"), options=_SET)  # fmt: skip
def scores(view: View, prompts: str = BANK) -> Drawn:
    layers = over_corpus(view, prompts, "linearity").table("layer_metrics")
    rows = metric_rows(layers, list(SCORES))
    n, needed = int(metric_rows(layers, ["linearity@no_sink"])["n_used"].max()), TOKENS_A_DIMENSION * view.facts.d_model
    if rows["value"].isna().all():
        raise Gap(_too_few(n, needed))
    tried = int(metric_rows(layers, ["linearity_held_out@no_sink"])["n_used"].max())
    note = f"Maps fitted on {n:,} tokens without sinks ({needed:,} needed), tried on {tried:,} of this text."
    figure = score_lines(layers, view.facts.n_layers)
    return Drawn(figure, note=note, csv=layers.sort_values(["metric", "layer"]), place=POINT)


@panel("geometry-nonlinearity", "geometry", "Tokens off the linear map", "For which tokens does a block what no linear map does?",
       ("geometry", "Nonlinearity of tokens"),
       options={**_SET, "distance": Option(tuple(DISTANCES), "geometry-distance")})  # fmt: skip
def tokens(view: View, prompts: str = BANK, distance: str = "relative") -> Drawn:
    beside = over_corpus(view, prompts, "linearity")
    metric = "nonlinearity_relative@no_sink" if distance == "relative" else "nonlinearity@no_sink"
    rows = beside.metric("token_metrics", metric)
    if rows["value"].isna().all():
        raise Gap(_too_few(int(rows["n_used"].max()), TOKENS_A_DIMENSION * view.facts.d_model))
    first, shown = view.sight()
    dropped = rows.loc[rows["layer"] == 1].set_index("pos")["value"].isna()
    return Drawn(
        nonlinearity_map(rows, shown, first, view.facts.n_layers, relative=distance == "relative"),
        note=_left_out(dropped),
        csv=rows,
        place=CELL,
    )


@panel("geometry-recall", "geometry", "Contextual recall (probe, not the paper's C)", "Do states tell which words stood before?",
       ("geometry", "Contextual recall"), options=_SET)  # fmt: skip
def recall(view: View, prompts: str = BANK) -> Drawn:
    layers = over_corpus(view, prompts, "recall").table("layer_metrics")
    rows = metric_rows(layers, ["context_recall@no_sink"])
    whole = layers[layers["layer"].isna()].set_index("metric")
    if rows["value"].isna().all():
        raise Gap(
            f"{int(rows['n_used'].max())} texts; it takes {MIN_TEXTS}, and words that stand in some windows and not in all."
        )
    baseline = float(whole["value"]["context_recall_position@no_sink"])
    words, texts = int(whole["value"]["context_recall_words@no_sink"]), int(rows["n_used"].max())
    note = f"{words:,} frequent tokens in windows of {WINDOW}, over {texts} texts, five folds of whole texts."
    return Drawn(recall_lines(rows, baseline, view.facts.n_layers), note=note, csv=layers, place=POINT)


def _too_few(n: int, needed: int) -> str:
    return (
        f"These prompts hold {n:,} tokens; a score takes {needed:,} (4 for each dimension), because with fewer a linear map "
        "fits anything."
    )


def _left_out(dropped: "pd.Series[bool]") -> str | None:
    positions = [str(pos) for pos, gone in dropped.items() if gone]
    if not positions:
        return None
    return f"Blank: position{'s' * (len(positions) > 1)} {', '.join(positions)}, a sink that the map was not fitted on."
