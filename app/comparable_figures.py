"""How each compared view is drawn of one side of a pair, and when its two sides cannot be subtracted."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.massive import life_spans
from analysis.preparation import HEADLINE
from analysis.sinks import MIN_TOKENS, column_importance
from app.comparison import Pair, Side
from app.figures.latents import fit_by_token, latent_map, latent_trace, strongest
from app.figures.lens import lens_map
from app.figures.lens_lines import Variant, layer_curves, rank_lines, trajectories
from app.figures.magnitudes import magnitude_map, map_dimensions
from app.figures.massive import life_lines, top_values
from app.figures.overview import overview
from app.figures.sinks import bos_cosine_map, head_map, importance_bars, sink_share
from app.figures.spectra import rank_plot
from app.figures.spectra_layers import by_layer, directions_by_layer
from app.figures.tokens import token_line
from app.reproduce import Convention, spectrum_at
from app.view import Gap

__all__ = [
    "Builder", "all_signals", "by_token", "cosine", "curve", "descriptor", "directions", "entries", "entry_dimensions",
    "fit", "heads", "largest", "latents_along", "latents_shown", "lives", "one_latent", "one_position", "one_rank",
    "other_head", "other_heads", "other_saes", "other_width", "rank_of_point", "reading", "received", "share", "spans",
]  # fmt: skip

Builder = Callable[[Side, Pair], go.Figure]

_SHOWN = 256  # tokens drawn of a longer text, around the selected one
_STATES = 128  # the same where every dimension is drawn
_CONVENTION = Convention(HEADLINE, "all", "slope")


def latents_shown(side: Side, pair: Pair) -> list[int]:
    """The latents that are strongest in either run, in the order of the text of A."""
    both = [strongest(side.asked("latents", "latents"), side.mask("no_sink"), 24) for side in (pair.a, pair.b)]
    return list(dict.fromkeys(both[0] + both[1]))


def all_signals(side: Side, pair: Pair) -> go.Figure:
    nothing = pd.DataFrame(columns=["layer", "kind", "text", "evidence"])
    layers, massive = side.asked("layer_metrics", "numbers by layer"), side.table("massive")
    return overview(n_layers=side.n_layers, massive=massive, layers=layers, events=nothing)


def _layers(side: Side, metric: str) -> pd.DataFrame:
    if side.metric("layer_metrics", metric).empty:
        raise Gap(f"{side.name} did not ask for this.")
    return side.table("layer_metrics")


def descriptor(metric: str) -> Builder:
    return lambda side, pair: by_layer(_layers(side, metric), metric, side.n_layers, nulls=metric == "alpha_sigma")


def rank_of_point(side: Side, pair: Pair) -> go.Figure:
    point = side.place.point
    layers, spectra = _layers(side, "alpha_sigma"), side.asked("spectra", "spectra")
    found = spectrum_at(layers, spectra, point, HEADLINE, side.facts.d_model, centred=True)
    if found is None or found.status != "ok":
        raise Gap(f"{side.name} has no spectrum of point {side.point}.")
    return rank_plot(found.s, _CONVENTION.fit(found), side.kept("spectral_null")[side.point].numpy())


def heads(metric: str) -> Builder:
    def build(side: Side, pair: Pair) -> go.Figure:
        rows = side.metric("head_metrics", metric)
        if rows.empty or rows["value"].isna().all():
            raise Gap(f"{side.name} has no such number: sink scores need at least {MIN_TOKENS} tokens.")
        flags = side.metric("head_metrics", "is_sink")
        return head_map(side.table("head_metrics"), metric, dots=bool(flags["value"].notna().any()))

    return build


def received(side: Side, pair: Pair) -> go.Figure:
    if side.own.info.n_tokens < MIN_TOKENS:
        raise Gap(f"{side.name} has too few tokens: sink scores need at least {MIN_TOKENS}.")
    head = side.place.head
    if head is not None and head >= side.facts.n_heads:
        raise Gap(f"{side.name} has no head {head}: it has {side.facts.n_heads}.")
    found = column_importance(side.kept("attention.column_sum"), side.facts.windows)
    a = found.a[side.block].mean(0) if head is None else found.a[side.block, head]
    first, tokens = side.window(_SHOWN)
    shown = slice(first, first + len(tokens))
    curves = (a, found.uniform[side.block], found.visible[side.block])
    received, uniform, visible = (side.along(curve.numpy())[shown] for curve in curves)
    return importance_bars(received, uniform, visible, tokens, first=first)


def cosine(kind: str) -> Builder:
    def build(side: Side, pair: Pair) -> go.Figure:
        rows = side.metric("token_metrics", f"bos_cosine_{kind}")
        if rows.empty:
            raise Gap(f"{side.name} did not ask for sinks.")
        first, tokens = side.window(_SHOWN)
        return bos_cosine_map(rows, f"bos_cosine_{kind}", tokens, first=first, n_layers=side.n_layers)

    return build


def largest(side: Side, pair: Pair) -> go.Figure:
    rows = _layers(side, "massive_top1")
    return top_values(rows, side.table("massive"), side.tokens, side.n_layers)


def lives(side: Side, pair: Pair) -> go.Figure:
    spans = life_spans(side.asked("massive", "massive activations"), side.n_layers + 1)
    if spans.empty:
        raise Gap(f"No entry is strictly massive in {side.name}.")
    return life_lines(spans, side.tokens, side.n_layers)


def _states(side: Side) -> np.ndarray:
    first, tokens = side.window(_STATES)
    return side.along(side.kept(f"resid.{side.point}").numpy())[first : first + len(tokens)]


def entry_dimensions(side: Side, pair: Pair) -> list[int]:
    """The dimensions drawn of a side, from below: all, or the largest of either and some others; its own where the two
    do not stand against each other."""
    sides = (side, side) if other_width(pair) else (pair.a, pair.b)
    return [int(dim) for dim in map_dimensions(np.fmax(*(np.abs(_states(one)) for one in sides)))]


def entries(side: Side, pair: Pair) -> go.Figure:
    first, tokens = side.window(_STATES)
    return magnitude_map(_states(side), tokens, first=first, dims=np.array(entry_dimensions(side, pair)))


def reading(variant: Variant, colour: str) -> Builder:
    def build(side: Side, pair: Pair) -> go.Figure:
        topk = side.asked("lens_topk", "the lens at positions that both have")
        first, tokens = side.window(_SHOWN)
        ids = topk["token_id"].unique().tolist()
        texts = dict(zip(ids, side.decode(ids), strict=True))
        metrics = side.table("token_metrics")
        return lens_map(topk, metrics, tokens, side.n_layers, texts, colour=colour, variant=variant, first=first)

    return build


def _lens_rows(side: Side) -> pd.DataFrame:
    rows = side.table("token_metrics")
    if rows.empty or not rows["metric"].str.startswith("lens_").any():
        raise Gap(f"{side.name} holds no lens at positions that both have.")
    return rows


def _at_position(side: Side) -> pd.DataFrame:
    rows = _lens_rows(side)
    here = rows[(rows["pos"] == side.place.position) & rows["metric"].str.startswith("lens_")]
    if here.empty:
        raise Gap(f"Position {side.place.position} of A was not read by both lenses.")
    return here


def latents_along(side: Side, pair: Pair) -> go.Figure:
    first, tokens = side.window(_SHOWN)
    latents = side.asked("latents", "latents")
    return latent_map(latents, latents_shown(side, pair), tokens, side.mask("no_sink"), first=first)


def one_latent(side: Side, pair: Pair) -> go.Figure:
    latent = side.place.latent
    if latent is None:
        raise Gap("No latent is selected: click one in the map of latents.")
    first, tokens = side.window(_SHOWN)
    return latent_trace(side.asked("latents", "latents"), latent, tokens, side.mask("no_sink"), first=first)


def fit(side: Side, pair: Pair) -> go.Figure:
    if side.metric("token_metrics", "sae_l0").empty:
        raise Gap(f"{side.name} did not ask for latents.")
    first, tokens = side.window(_SHOWN)
    return fit_by_token(side.table("token_metrics"), tokens, side.mask("no_sink"), first=first)


def by_token(metric: str, title: str, *, log: bool = False) -> Builder:
    def build(side: Side, pair: Pair) -> go.Figure:
        rows = side.metric("token_metrics", metric)
        if rows.empty:
            raise Gap(f"{side.name} did not ask for this.")
        if rows["layer"].notna().any():
            rows = rows[rows["layer"] == side.place.point]
        first, tokens = side.window(_SHOWN)
        return token_line(rows, title, tokens, first=first, log=log)

    return build


def other_heads(pair: Pair) -> str | None:
    a, b = pair.a.facts, pair.b.facts
    if (a.n_layers, a.n_heads) == (b.n_layers, b.n_heads):
        return None
    return (
        f"No difference: A has {a.n_layers} blocks of {a.n_heads} heads and B {b.n_layers} of {b.n_heads}, so no head "
        "of one stands against one of the other."
    )


def other_head(pair: Pair) -> str | None:
    return None if pair.a.place.head is None else other_heads(pair)


def other_width(pair: Pair) -> str | None:
    a, b = pair.a.facts.d_model, pair.b.facts.d_model
    return (
        None if a == b else f"No difference: A has {a} dimensions and B {b}, so they do not stand against each other."
    )


def other_saes(pair: Pair) -> str | None:
    saes = []
    for side in (pair.a, pair.b):
        rows = side.own.table("latents")
        saes.append(None if rows.empty else (rows["sae"].iloc[0], int(rows["layer"].iloc[0])))
    return "No difference: the runs were read with different SAEs." if None not in saes and saes[0] != saes[1] else None


def spans(pair: Pair) -> str | None:
    return "No difference: lives are spans. The table above says how birth and death moved."


def share(side: Side, pair: Pair) -> go.Figure:
    return sink_share(_layers(side, "sink_share"), side.n_layers)


def directions(side: Side, pair: Pair) -> go.Figure:
    return directions_by_layer(_layers(side, "n_parallel"), side.n_layers)


def curve(which: int) -> Builder:
    """Of the lens at all positions: KL (0) or rank (1)."""
    return lambda side, pair: layer_curves(_lens_rows(side), side.n_layers, side.facts.d_vocab)[which]


def one_position(side: Side, pair: Pair) -> go.Figure:
    return trajectories(_at_position(side), side.place.position, side.n_layers)


def one_rank(side: Side, pair: Pair) -> go.Figure:
    return rank_lines(_at_position(side), side.place.position, side.n_layers, side.facts.d_vocab)
