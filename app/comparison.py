"""Two stored runs on one set of axes: the tables of B moved to the positions and points of A, so one builder draws both."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from analysis.alignment import Alignment, by_position, by_token, layer_map
from app.view import Gap
from cache.keys import digest
from probes.model.loaded import ModelFacts
from probes.runner import RunResult

__all__ = ["NO_TOKEN", "Pair", "Place", "Remember", "Side", "default_alignment", "make_pair", "token_texts"]

Remember = Callable[[Hashable, Callable[[], Any]], Any]

NO_TOKEN = ""  # stands in the tokens of B where A has a position that no token of B is aligned to
_POINTS = frozenset({"layer_metrics", "token_metrics", "spectra", "mp_outliers", "lens_topk", "massive", "latents"})
_BLOCKS = frozenset({"head_metrics", "position_head_metrics", "massive_neurons"})
_SAID_POINTS = ("lens_depth", "lens_first_nat")  # token metrics whose value is itself a point


class Place(Protocol):
    """What is selected, in the positions, points and heads of A."""

    @property
    def point(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def head(self) -> int | None: ...
    @property
    def latent(self) -> int | None: ...
    @property
    def first(self) -> int | None: ...


@dataclass(frozen=True)
class Side:
    """One of the two runs on the axes of A.

    ``tokens`` are the raw texts at the positions of A (`NO_TOKEN` where none is aligned), ``positions`` the run's own
    positions there (-1: none) and ``points`` its own points; ``read`` are the positions both lenses read.
    """

    name: Literal["A", "B"]
    own: RunResult
    tokens: tuple[str, ...]
    positions: np.ndarray
    points: tuple[int, ...]
    read: frozenset[int]
    place: Place
    remember: Remember
    read_ids: Callable[[str, Sequence[int], str | None], tuple[str, ...]]

    @property
    def facts(self) -> ModelFacts:
        return self.own.facts

    @property
    def n_layers(self) -> int:
        """The number of layers along the axis, which is A's."""
        return len(self.points) - 1

    @property
    def point(self) -> int:
        """The run's own point that stands at the selected one."""
        return self.points[self.place.point]

    @property
    def block(self) -> int:
        """The run's own block whose output that point is; block 0 for the embeddings."""
        return max(self.point - 1, 0)

    @property
    def on_own_layers(self) -> "Side":
        """The same with the run's own points, for views whose rows cannot be matched anyway."""
        return replace(self, points=tuple(range(self.facts.n_layers + 1)))

    def decode(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """The raw text of any token ids of the run's model."""
        return self.read_ids(self.own.info.model, token_ids, self.facts.tokenizer)

    def window(self, limit: int) -> tuple[int, tuple[str, ...]]:
        """The first position in sight and the tokens from there: all, or ``limit`` of a longer text."""
        count, place = len(self.tokens), self.place
        first = place.position - limit // 2 if place.first is None else place.first
        first = min(max(first, 0), max(count - limit, 0))
        return first, self.tokens[first : first + limit]

    def table(self, name: str) -> pd.DataFrame:
        """The rows of a result table on the axes of A; rows of positions that are not aligned are left out.

        Rows of a lens are those of the positions both runs read. Raises ValueError for a table whose axes are not known.
        """
        if name not in _POINTS | _BLOCKS:
            raise ValueError(f"{name!r} cannot be moved to other axes; {', '.join(sorted(_POINTS | _BLOCKS))} can")
        frame: pd.DataFrame = self.remember((self.name, "table", name, self.points), lambda: self._moved(name))
        return frame

    def metric(self, table: str, name: str) -> pd.DataFrame:
        """The rows of one metric in a long table."""
        frame = self.table(table)
        return frame if frame.empty else frame[frame["metric"] == name]

    def asked(self, table: str, what: str) -> pd.DataFrame:
        """The table. Raises Gap if the run has no row in it."""
        frame = self.table(table)
        if frame.empty:
            raise Gap(f"{self.name} did not ask for {what}.")
        return frame

    def kept(self, name: str) -> Tensor:
        """A tensor of the run on its own axes. Raises Gap once the store has dropped it."""
        try:
            return self.own.tensor(name)
        except KeyError:
            raise Gap(f"A tensor of {self.name} is no longer kept: run the text again to see this.") from None

    def along(self, values: np.ndarray) -> np.ndarray:
        """``values`` with the run's own positions on the first axis, moved to those of A; NaN where none is aligned."""
        moved = np.full((len(self.positions), *values.shape[1:]), np.nan, dtype=np.result_type(values.dtype, "float32"))
        there = self.positions >= 0
        moved[there] = values[self.positions[there]]
        return moved

    def mask(self, name: str) -> np.ndarray:
        """A kept mask of tokens; False where none is aligned. Raises Gap as :meth:`kept` does."""
        return np.asarray(self.along(self.kept(name).numpy().astype("float32")) > 0)

    def _moved(self, name: str) -> pd.DataFrame:
        rows = self.own.table(name)
        if rows.empty:
            return rows
        if "pos" in rows:
            rows = rows.assign(pos=rows["pos"].map(self._position_at)).dropna(subset="pos").astype({"pos": "int64"})
        if self.points != tuple(range(self.facts.n_layers + 1)):
            rows = _on_points(rows, self.points, offset=1 if name in _BLOCKS else 0)
            if name == "token_metrics":
                rows = self._said_points(rows)
        if name == "token_metrics":
            rows = rows[~rows["metric"].str.startswith("lens_") | rows["pos"].isin(self.read)]
        elif name == "lens_topk":
            rows = rows[rows["pos"].isin(self.read)]
        return rows.reset_index(drop=True)

    def _said_points(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Values that are points of the run itself, as the nearest points of A."""
        said = rows["metric"].str.partition("@")[0].isin(_SAID_POINTS) & rows["value"].notna()
        nearest = np.array(layer_map(self.facts.n_layers, self.n_layers), dtype=float)
        values = rows["value"].to_numpy(dtype=float, copy=True)
        values[said] = nearest[values[said].astype(int)]
        return rows.assign(value=values)

    @cached_property
    def _position_at(self) -> dict[int, int]:
        return {int(own): at for at, own in enumerate(self.positions) if own >= 0}


@dataclass(frozen=True)
class Pair:
    """A, and B seen through an alignment, at one place; ``key`` names the three."""

    a: Side
    b: Side
    alignment: Alignment
    key: str

    def position_of_b(self, position: int) -> int | None:
        """The position of B that stands at a position of A."""
        return self.alignment.to_b.get(position)


def make_pair(
    a: RunResult,
    b: RunResult,
    alignment: Alignment,
    place: Place,
    memo: Remember,
    decode: Callable[[str, Sequence[int], str | None], tuple[str, ...]],
) -> Pair:
    """A and B on the axes of A. ``memo`` keeps what is built under a key; ``decode`` gives texts of a model's token ids.

    Raises ValueError for an alignment that does not fit the two texts.
    """
    alignment.within(a.info.n_tokens, b.info.n_tokens)
    key = digest([a.info.run_id, b.info.run_id, alignment.pairs])
    remember: Remember = partial(_under, memo, key)
    tokens_a, tokens_b = token_texts(a), token_texts(b)
    positions = np.array([alignment.to_b.get(position, -1) for position in range(len(tokens_a))], dtype=np.int64)
    aligned = tuple(NO_TOKEN if own < 0 else tokens_b[own] for own in positions)
    read = remember("read", lambda: _read_by_both(a, b, alignment))
    identity = np.arange(len(tokens_a))
    points = tuple(range(a.facts.n_layers + 1))
    return Pair(
        Side("A", a, tokens_a, identity, points, read, place, remember, decode),
        Side("B", b, aligned, positions, layer_map(a.facts.n_layers, b.facts.n_layers), read, place, remember, decode),
        alignment,
        key,
    )


def default_alignment(a: RunResult, b: RunResult) -> tuple[Literal["position", "token"], Alignment]:
    """By position if the token ids are equal, by token otherwise."""
    ids_a, ids_b = (run.tokens.sort_values("pos")["token_id"].tolist() for run in (a, b))
    if ids_a == ids_b:
        return "position", by_position(len(ids_a), len(ids_b))
    return "token", by_token(token_texts(a), token_texts(b))


def token_texts(run: RunResult) -> tuple[str, ...]:
    """The raw text of each token of a run."""
    return tuple(run.tokens.sort_values("pos")["text"])


def _under(memo: Remember, key: str, what: Hashable, build: Callable[[], Any]) -> Any:
    return memo((key, what), build)


def _read_by_both(a: RunResult, b: RunResult, alignment: Alignment) -> frozenset[int]:
    """The positions of A at which both lenses were read."""
    read = []
    for run in (a, b):
        rows = run.table("token_metrics")
        lens = rows[rows["metric"].str.startswith("lens_")] if not rows.empty else rows
        read.append(frozenset() if lens.empty else frozenset(lens["pos"].astype(int).tolist()))
    return frozenset(position for position in read[0] if alignment.to_b.get(position) in read[1])


def _on_points(rows: pd.DataFrame, points: tuple[int, ...], offset: int) -> pd.DataFrame:
    """Rows of own layers, once for every point of A they stand at (block b stands at point b + 1: ``offset`` 1)."""
    places = pd.DataFrame({"at": range(len(points)), "layer": points}) - offset
    places = places[(places["at"] >= 0) & (places["layer"] >= 0)]
    everywhere = rows["layer"].isna()
    layered = rows[~everywhere].astype({"layer": "int64"})
    moved = layered.merge(places, on="layer").drop(columns="layer").rename(columns={"at": "layer"})[rows.columns]
    if not everywhere.any():
        return moved
    return pd.concat([rows[everywhere].astype({"layer": float}), moved.astype({"layer": float})], ignore_index=True)
