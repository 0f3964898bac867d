"""Panels of one latent, from the index of its SAE: what it fires on, how strongly, and which latents are beside it."""

from typing import Any

import numpy as np
import pandas as pd

from app.figures.latent_examples import example_strips
from app.figures.latent_index import activation_histogram, neighbour_bars, token_means
from app.figures.latent_population import MOST_DRAWN, decoder_map
from app.panels.panel import Click, Drawn, Marks, Option, Place, panel
from app.sae_index import Indexed, indexed, latent_here
from app.text import markdown
from app.view import Gap, View

__all__ = ["COACTIVE", "EXAMPLES", "SAE"]

SAE = {"sae": Option(str, "latents-choice")}
EXAMPLES = {"top": "strongest", "quantile": "from every bin"}
COACTIVE = {"coactive": "Jaccard", "phi": "phi"}
_LINES = 20
_NAME = 60


@panel("latent-examples", "latent", "Examples", "What text does it fire on, and how strongly?",
       ("latent", "Examples"), options={**SAE, "kind": Option(tuple(EXAMPLES), "latent-examples-kind")})  # fmt: skip
def examples(view: View, sae: str = "", kind: str = "top") -> Drawn:
    index, latent = indexed(view, sae), latent_here(view, sae)
    row = index.fired(latent)
    rows = _examples(index, latent, kind)
    if rows.empty:
        raise Gap("The index keeps no such examples of it.")
    first = rows[rows["peak"]].sort_values("example")
    bins = [f"bin {rank} · " if kind == "quantile" else "" for rank in first["rank"]]
    names = [f"{place}{value:.3g}" for place, value in zip(bins, first["activation"], strict=True)]
    most = float(row["max"])
    figure = index.memo(
        ("figure", "latent-examples", latent, kind),
        lambda: example_strips(rows.assign(text=rows["name"] + ", " + rows["source"]), names, most),
    )
    pieces = f"{len(first)} of the {int(index.row['n_sequences']):,} pieces of text of the index"
    note = f"{pieces}; numbers are activations at the middle token, and full colour is {most:.4g}."
    return Drawn(figure, _named(index, latent), note=note, csv=rows.drop(columns="example"))


@panel("latent-activations", "latent", "Activations", "How strong is it where it fires?",
       ("latent", "Activations"), options=SAE)  # fmt: skip
def activations(view: View, sae: str = "") -> Drawn:
    index, latent = indexed(view, sae), latent_here(view, sae)
    row = index.fired(latent)
    counts = np.asarray(row["histogram"], dtype=np.int64)
    edges = np.linspace(0.0, float(row["max"]), len(counts) + 1)
    figure = index.memo(
        ("figure", "latent-activations", latent), lambda: activation_histogram(edges, counts, float(row["mean"]))
    )
    note = f"It fires on {int(row['n_fired']):,} of {index.n_tokens:,} tokens ({float(row['density']):.3%})."
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "tokens": counts})
    return Drawn(figure, f"Activations of latent {latent}", note=note, csv=table)


@panel("latent-tokens", "latent", "Max tokens", "On which tokens is it strongest on average?",
       ("latent", "Max tokens"), options=SAE)  # fmt: skip
def tokens(view: View, sae: str = "") -> Drawn:
    index, latent = indexed(view, sae), latent_here(view, sae)
    index.fired(latent)
    rows = index.table("sae_latent_tokens", latent)
    if rows.empty:
        raise Gap("No token it fires on was seen often enough for a mean.")
    texts = index.decode(rows["token_id"])
    figure = index.memo(("figure", "latent-tokens", latent), lambda: token_means(rows, texts))
    return Drawn(figure, f"Max tokens of latent {latent}", csv=rows.assign(token=texts))


@panel("latent-neighbours", "latent", "Nearest by decoder", "Which latents write in nearly the same direction?",
       ("latent", "Nearest by decoder"), options=SAE)  # fmt: skip
def neighbours(view: View, sae: str = "") -> Drawn:
    return _beside(view, sae, "decoder", "Nearest by decoder to", "cosine of decoder rows")


@panel("latent-coactive", "latent", "Fires together with", "Which latents fire on the same tokens?",
       ("latent", "Fires together with"), options={**SAE, "kind": Option(tuple(COACTIVE), "latent-coactive-kind")})  # fmt: skip
def coactive(view: View, sae: str = "", kind: str = "coactive") -> Drawn:
    measure = "Jaccard index" if kind == "coactive" else "phi coefficient"
    return _beside(view, sae, kind, "Fires together with", measure)


@panel("latent-decoder-map", "latent", "Map of the decoder", "Where does it lie among all latents?",
       ("latent", "Map of the decoder"), options=SAE)  # fmt: skip
def decoder_plane(view: View, sae: str = "") -> Drawn:
    index = indexed(view, sae)
    latents, labels = index.latents, index.labels()
    if latents["x"].isna().all():
        raise Gap("The index keeps no map of this SAE.")
    figure = index.memo(
        ("figure", "latent-decoder-map", hash(tuple(labels.items()))), lambda: decoder_map(latents, labels)
    )
    drawn = int(latents["x"].notna().sum())
    cut = f" The {MOST_DRAWN:,} that fire most often of {drawn:,} are drawn." if drawn > MOST_DRAWN else ""

    def along(column: str, latent: int | None) -> float | None:
        value = float("nan") if latent not in latents.index else float(latents.loc[latent, column])
        return None if np.isnan(value) else value

    def here(selection: object) -> int | None:
        mine = getattr(selection, "latent", None)
        return latent_here(view, sae) if mine is None and selection == view.selection else mine

    place = Marks(lambda one: along("x", here(one)), lambda one: along("y", here(one)))
    columns = ["latent", "label", "x", "y", "density", "n_fired"]
    table = latents.assign(label=latents["latent"].map(labels).fillna(""))[columns].reset_index(drop=True)
    note = f"Two of {index.sae.d_in} dimensions.{cut}"
    return Drawn(figure, note=note, csv=table, place=place, pick=_latent_of)


def _beside(view: View, sae: str, kind: str, title: str, measure: str) -> Drawn:
    index, latent = indexed(view, sae), latent_here(view, sae)
    index.latent(latent)
    whole = index.table("sae_neighbours", latent)
    rows = whole[whole["kind"] == kind].sort_values("rank")
    if rows.empty:
        few = f"Latent {latent} has none: it fires too seldom in the index, or the index is too small to say."
        raise Gap("The index keeps no neighbours of it." if kind == "decoder" else few)
    labels = index.labels()
    named = tuple((int(other), labels.get(int(other), "")) for other in rows["other"])
    figure = index.memo(("figure", kind, latent, named), lambda: neighbour_bars(rows, labels, measure))
    table = rows.assign(label=[label for _, label in named])
    place = Place(y="latent", rows=[other for other, _ in named])
    return Drawn(figure, f"{title} latent {latent}", csv=table, place=place)


def _examples(index: Indexed, latent: int, kind: str) -> pd.DataFrame:
    """The tokens of the examples of one kind, the strongest first: one row a token, exactly one peak in each."""

    def read() -> pd.DataFrame:
        hits = index.table("sae_hits", latent)
        hits = hits[hits["kind"] == kind].sort_values(["activation", "seq"], ascending=[False, True]).head(_LINES)
        parts = [_line(index, number, hit) for number, hit in enumerate(hits.itertuples())]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    frame: pd.DataFrame = index.memo(("examples", latent, kind), read)
    return frame


def _line(index: Indexed, number: int, hit: Any) -> pd.DataFrame:
    first, seq = int(hit.first), index.sequence(int(hit.seq))
    values = np.asarray(hit.activations, dtype=np.float64)
    ids = np.asarray(seq["token_ids"])[first : first + len(values)]
    places = np.arange(first, first + len(ids))
    return pd.DataFrame(
        {
            "example": number,
            "rank": int(hit.rank),
            "seq": int(hit.seq),
            "name": str(seq["name"]),
            "source": str(seq["source"]),
            "pos": places,
            "token_id": ids,
            "token": index.decode(ids),
            "activation": values[: len(ids)],
            "peak": places == int(hit.pos),
        }
    )


def _named(index: Indexed, latent: int) -> str:
    label = index.labels().get(latent, "")
    short = label if len(label) <= _NAME else label[: _NAME - 1] + "…"
    return f"Examples of latent {latent}" + (f" · {markdown(short)}" if short else "")


def _latent_of(click: Click) -> dict[str, int | None]:
    return {"latent": int(click.customdata)} if isinstance(click.customdata, int | float | np.integer) else {}
