"""What changed from run A to run B: one row a quantity, both values, where, and why there is none."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.alignment import layer_map
from analysis.massive import life_spans
from app.comparison import Pair, Side
from app.sae_rows import sae_rows
from app.text import visible
from probes.model.edits import describe

__all__ = ["Change", "changes", "set_apart"]

_SINK = 0.3
_ALPHAS = {
    "alpha_sigma": "alpha, normed",
    "alpha_sigma@raw_all": "alpha, raw, all tokens",
    "alpha_sigma@raw_no_bos": "alpha, raw, no position 0",
    "alpha_sigma@raw_no_sink": "alpha, raw, no sinks",
    "matrix_entropy": "matrix entropy, normed",
    "n_parallel": "directions above noise (n_parallel)",
}
_VIEWS = {"matrix_entropy": "spectra-matrix-entropy", "n_parallel": "spectra-directions"}


@dataclass(frozen=True)
class Change:
    """One quantity of both runs; NaN where it is undefined, with the ``reason``.

    ``view`` is the key of the view that shows it, ``place`` what of the selection it names (positions and points of A).
    """

    quantity: str
    a: float
    b: float
    view: str
    where: str = ""
    reason: str = ""
    place: Mapping[str, int] = field(default_factory=dict)

    @property
    def difference(self) -> float:
        """B − A; NaN if either is."""
        return self.b - self.a


def changes(pair: Pair) -> list[Change]:
    """Every quantity in its order. Nothing is computed anew: all is read from the two runs' tables."""
    return [*_surprise(pair), *_massive(pair), *_sinks(pair), *_spectra(pair), *_lens(pair), *_latents(pair)]


def set_apart(pair: Pair) -> str:
    """In one line, what else differs between the runs: model, weights, precision, mask, edits, text. Raw text."""
    a, b = pair.a.own.info, pair.b.own.info
    if a.run_id == b.run_id:
        return "A and B are the same run."
    told = []
    for name, of in (
        ("model", lambda info: info.model),
        ("weights", lambda info: f"{info.weights} ({info.fingerprint[:8]})"),
        ("dtype", lambda info: info.dtype),
        ("mask", lambda info: info.mask),
        ("edits", lambda info: describe(info.request.edits)),
    ):
        if of(a) != of(b):
            told.append(f"{name}: {of(a)} | {of(b)}")
    ids = [side.own.tokens.sort_values("pos")["token_id"].tolist() for side in (pair.a, pair.b)]
    if ids[0] != ids[1]:
        same = sum(ids[0][i] == ids[1][j] for i, j in pair.alignment.pairs) if a.model == b.model else None
        alike = "" if same is None else f", {same} aligned and equal"
        told.append(f"tokens: {len(ids[0]):,} | {len(ids[1]):,}{alike}")
    return "Differs: " + " · ".join(told) if told else "Same model, weights, mask, edits and tokens."


def _surprise(pair: Pair) -> Iterator[Change]:
    means = []
    for side in (pair.a, pair.b):
        rows = side.own.table("token_metrics")
        values = np.empty(0) if rows.empty else rows.loc[rows["metric"] == "nll", "value"].to_numpy(dtype=float)
        means.append(float(np.nanmean(values)) if np.isfinite(values).any() else math.nan)
    reason = _missing(pair, means, "no token has a surprise")
    yield Change(
        "perplexity, all tokens", math.exp(means[0]), math.exp(means[1]), "tokens-nll", "exp of the mean nll", reason
    )
    both = _joined(pair, "token_metrics", "nll", "pos")
    if both.empty:
        yield Change(
            "mean nll, aligned tokens", math.nan, math.nan, "tokens-nll", reason="no aligned token has it in both"
        )
        return
    most = int((both["b"] - both["a"]).abs().idxmax())
    where = f"{_count(len(both), 'token')}; most at position {most} {visible(pair.a.tokens[most])}"
    yield Change(
        "mean nll, aligned tokens", both["a"].mean(), both["b"].mean(), "tokens-nll", where, place={"position": most}
    )


def _massive(pair: Pair) -> Iterator[Change]:
    tops, spans, counts = [], [], []
    for side in (pair.a, pair.b):
        rows = side.own.table("massive")
        tops.append(None if rows.empty else rows.loc[rows["value"].abs().idxmax()])
        strict = rows if rows.empty else rows[rows["strict"].astype(bool)]
        counts.append(math.nan if rows.empty else float(len(strict[["pos", "dim"]].drop_duplicates())))
        spans.append(None if strict.empty else _span(strict, side.facts.n_layers))
    sizes = [math.nan if top is None else abs(float(top["value"])) for top in tops]
    spots = {
        side.name: f"point {top['layer']}, position {top['pos']}, dimension {top['dim']}"
        for side, top in zip((pair.a, pair.b), tops, strict=True)
        if top is not None
    }
    where = "; ".join(f"{name}: {spot}" for name, spot in spots.items())
    if len(spots) == 2 and spots["A"] == spots["B"]:
        where = f"{spots['A']} in both"
    place = _place(tops)
    reason = _missing(pair, sizes, "not asked")
    yield Change("largest |activation|", sizes[0], sizes[1], "massive-top", where, reason, place)
    for end, word in (("birth", "born"), ("death", "gone")):
        points = [
            math.nan if span is None or pd.isna(span[end]) else _as_point_of_a(pair, side, int(span[end]))
            for side, span in zip((pair.a, pair.b), spans, strict=True)
        ]
        reasons = [
            f"{side.name}: {'nothing is strictly massive' if span is None else 'it lasts to the last point'}"
            for side, span, value in zip((pair.a, pair.b), spans, points, strict=True)
            if math.isnan(value)
        ]
        first = spans[0]
        at = {} if first is None or math.isnan(points[0]) else {"point": int(points[0]), "position": int(first["pos"])}
        name = f"{end} of the largest massive entry (point)"
        yield Change(name, points[0], points[1], "massive-lives", f"point where it is {word}", "; ".join(reasons), at)
    reason = _missing(pair, counts, "not asked")
    yield Change(
        "strictly massive entries", counts[0], counts[1], "massive-lives", "position and dimension pairs", reason, place
    )


def _span(strict: pd.DataFrame, n_layers: int) -> pd.Series:
    """The first life of the largest strictly massive entry."""
    top = strict.loc[strict["value"].abs().idxmax()]
    own = strict[(strict["pos"] == top["pos"]) & (strict["dim"] == top["dim"])]
    spans = life_spans(own, n_layers + 1)
    return spans.iloc[0]


def _as_point_of_a(pair: Pair, side: Side, point: int) -> float:
    """A point of a run as the nearest point of A, so that models of two depths can be subtracted."""
    return float(layer_map(side.facts.n_layers, pair.a.n_layers)[point])


def _place(tops: list[pd.Series | None]) -> dict[str, int]:
    """Where the largest entry of A is."""
    top = tops[0]
    if top is None:
        return {}
    return {"point": int(top["layer"]), "position": int(top["pos"]), "dimension": int(top["dim"])}


def _sinks(pair: Pair) -> Iterator[Change]:
    firsts, shares, reasons = [], [], []
    for side in (pair.a, pair.b):
        rows = side.own.table("head_metrics")
        flags = rows if rows.empty else rows[rows["metric"] == "is_sink"]
        by_block = pd.Series(dtype=float) if flags.empty else flags.groupby("layer")["value"].mean()
        on = by_block[by_block > 0]
        reason = "not asked" if flags.empty else "too few tokens" if by_block.isna().all() else "no head is a sink"
        reasons += [] if len(on) else [f"{side.name}: {reason}"]
        firsts.append(max(_as_point_of_a(pair, side, int(on.index.min()) + 1) - 1, 0.0) if len(on) else math.nan)
        shares.append(float(by_block[by_block.index >= on.index.min()].mean()) if len(on) else math.nan)
    told, why = f"a head is a sink above {_SINK} of attention to position 0", "; ".join(reasons)
    at = {} if math.isnan(firsts[0]) else {"point": int(firsts[0]) + 1}
    yield Change("first block with sinks", firsts[0], firsts[1], "sinks-share", told, why, at)
    yield Change(
        "share of sink heads from that block on", shares[0], shares[1], "sinks-sink-score", "mean over blocks", why, at
    )


def _spectra(pair: Pair) -> Iterator[Change]:
    for metric, name in _ALPHAS.items():
        view = _VIEWS.get(metric, "spectra-alpha-sigma")
        both = _joined(pair, "layer_metrics", metric, "layer")
        if both.empty:
            yield Change(f"{name}, mean over points", math.nan, math.nan, view, reason="no point has it in both runs")
            continue
        step = both["b"] - both["a"]
        most = int(step.abs().idxmax())
        where = f"{_count(len(both), 'point')}; most at point {most} ({step[most]:+.3g})"
        means = both["a"].mean(), both["b"].mean()
        yield Change(f"{name}, mean over points", means[0], means[1], view, where, place={"point": most})


def _lens(pair: Pair) -> Iterator[Change]:
    for metric, name in (("lens_depth@mean", "lens depth, mean-corrected"), ("lens_depth", "lens depth, raw")):
        both = _joined(pair, "token_metrics", metric, "pos")
        reason = "" if len(both) else "no position that both lenses read has it"
        middles = [float(both[side].median()) if len(both) else math.nan for side in "ab"]
        yield Change(f"{name} (point)", middles[0], middles[1], "lens-kl-mean", _over(both, "median"), reason)
    middle = pair.a.n_layers // 2
    for metric, name, view in (
        ("lens_kl@mean", "mean-corrected", "lens-kl-mean"),
        ("lens_kl", "raw", "lens-kl-raw"),
    ):
        both = _joined(pair, "token_metrics", metric, "pos", point=middle)
        both = both[both.index > 0]
        reason = "" if len(both) else "no position after 0 that both lenses read has it"
        means = [float(both[side].mean()) if len(both) else math.nan for side in "ab"]
        where = f"point {middle}; {_over(both, 'mean')}" if len(both) else ""
        yield Change(
            f"lens KL at the middle, {name} (nats)", means[0], means[1], view, where, reason, {"point": middle}
        )


def _latents(pair: Pair) -> Iterator[Change]:
    saes = [rows["sae"].iloc[0] if len(rows) else None for rows in (s.own.table("latents") for s in (pair.a, pair.b))]
    same = saes[0] == saes[1] or None in saes
    for metric, name, where in (
        ("sae_explained_variance", "SAE explained variance", "without sinks and massive tokens"),
        ("sae_explained_variance@all", "SAE explained variance, all tokens", "tokens of the mask"),
        ("sae_l0", "SAE L0", "without sinks and massive tokens"),
    ):
        values = [_one(side, metric) for side in (pair.a, pair.b)]
        reason = _missing(pair, values, "not read with an SAE") if same else "read with different SAEs"
        yield Change(name, values[0], values[1], "latents-fit", where, reason)


def _one(side: Side, metric: str) -> float:
    rows = sae_rows(side.own.table("layer_metrics"))
    found = rows if rows.empty else rows[rows["metric"] == metric]
    return math.nan if found.empty else float(found["value"].iloc[0])


def _joined(pair: Pair, table: str, metric: str, by: str, point: int | None = None) -> pd.DataFrame:
    """Columns ``a`` and ``b`` of a metric where both have a number, by ``pos`` or ``layer`` of A."""
    columns = {}
    for name, side in (("a", pair.a), ("b", pair.b)):
        rows = side.metric(table, metric)
        if rows.empty:
            return pd.DataFrame(columns=["a", "b"], dtype=float)
        rows = rows if point is None else rows[rows["layer"] == point]
        columns[name] = rows.set_index(rows[by].astype(int))["value"].astype(float)
    return pd.DataFrame(columns).dropna()


def _missing(pair: Pair, values: list[float], why: str) -> str:
    names = [side.name for side, value in zip((pair.a, pair.b), values, strict=True) if math.isnan(value)]
    return f"{' and '.join(names)}: {why}" if names else ""


def _over(both: pd.DataFrame, what: str) -> str:
    return f"{what} over {_count(len(both), 'position')} that both read" if len(both) else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
