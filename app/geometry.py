"""The geometry of a run, and of the same tokens in other orders: what is asked, and what the store has of it. No streamlit."""

import dataclasses
from math import sqrt
from typing import Literal

import pandas as pd
from scipy import stats

from analysis.inference import LEVEL
from analysis.shuffle import SEEDS, shuffled_order
from app.jobs import Job, Key
from app.services import Services
from app.view import View
from probes.errors import BadRequest
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.sweep import sweep

__all__ = ["GEOMETRY", "ORDERS", "Order", "n_shuffles_left", "of_run", "shuffle_job", "shuffle_key", "shuffled"]

Order = Literal["full", "blocks"]
GEOMETRY = ProbeCall("geometry")
ORDERS: dict[Order, int | None] = {"full": None, "blocks": 1}
"""All tokens shuffled, or four blocks of the text: the block permutation index of `analysis.shuffle`."""


def of_run(view: View) -> View:
    """The geometry of a run at the same selection. Raises Gap if it was not asked for."""
    return view.beside(view.answer(GEOMETRY))


def shuffle_key(view: View) -> Key:
    """Under which the desk knows the shuffles of a run."""
    return ("shuffles", view.info.run_id)


def n_shuffles_left(view: View) -> int:
    """How many shuffled texts of a run the store does not hold yet. Raises BadRequest for a text too short to shuffle."""
    wanted = {view.id_of(request) for order in ORDERS for request in _requests(view, order)}
    return len(wanted - view.services.store.known_runs(wanted))


def shuffle_job(view: View) -> Job:
    """Run the text in other orders in the background; what is stored stays when it is cancelled."""
    held: Services = view.services
    requests = [request for order in ORDERS for request in _requests(view, order)]

    def work(progress: Progress) -> None:
        refused = sweep(held.runner, requests, progress).refused
        if refused:
            raise BadRequest(
                f"{len(refused)} of {len(requests)} shuffled texts could not be run: {next(iter(refused.values()))}"
            )

    return held.desk.submit(view.info.model, shuffle_key(view), "The same tokens shuffled", work)


def shuffled(view: View, order: Order) -> pd.DataFrame:
    """What geometry says of a text whose tokens are shuffled, a band over the seeds: ``layer, metric, low, mean, high,
    margin, seeds``. ``margin`` is half the 95 % interval of the mean (t over the seeds). Empty while it was not run.

    Raises BadRequest for a text too short to shuffle.
    """
    found = [view.find_request(request) for request in _requests(view, order)]
    if any(one is None for one in found):
        return pd.DataFrame(columns=["layer", "metric", "low", "mean", "high", "margin", "seeds"])

    def banded() -> pd.DataFrame:
        rows = pd.concat([one.table("layer_metrics") for one in found if one is not None])
        values = rows.groupby(["layer", "metric"])["value"]
        band = values.agg(low="min", mean="mean", high="max", sd="std", seeds="count").reset_index()
        band = band[band["seeds"] == len(found)]  # a band of some of the seeds would be another one
        t = float(stats.t.ppf((1 + LEVEL) / 2, len(found) - 1)) if len(found) > 1 else float("nan")
        return band.assign(margin=t * band["sd"] / sqrt(len(found))).drop(columns="sd")

    table: pd.DataFrame = view.memo(("shuffled", order), banded)
    return table


def _requests(view: View, order: Order) -> list[RunRequest]:
    """The text in as many different orders as there are seeds; its BOS stays where it is."""
    mine = view.info.request.with_probes(GEOMETRY)
    ids = mine.token_ids
    fixed = int(ids[0] == view.facts.bos_id)
    try:
        orders = [shuffled_order(len(ids), seed, ORDERS[order], fixed=fixed) for seed in SEEDS]
    except ValueError as problem:
        raise BadRequest(f"This text cannot be shuffled: {problem}.") from None
    texts = dict.fromkeys(tuple(ids[int(old)] for old in one) for one in orders)
    return [dataclasses.replace(mine, token_ids=text) for text in texts]
