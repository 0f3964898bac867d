"""Geometry over a prompt set: its runs, linear maps fitted on them, and whether a metric goes with the loss. No streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.loss_correlation import loss_correlation, type_token_ratio
from app.geometry import GEOMETRY
from app.jobs import sentence
from app.sweeps import Survey, survey
from app.text import markdown
from app.view import Gap, View
from cache import Store
from probes.errors import BadRequest
from probes.progress import Progress
from probes.prompts import bank
from probes.prompts.library import all_sets
from probes.prompts.sets import BUILT_IN, Prompt, PromptSet
from probes.request import ProbeCall, RunRequest
from probes.set_sweep import SetAsk, sweep_set

__all__ = [
    "BANK",
    "LOSS_METRICS",
    "CorpusProbe",
    "SetMetric",
    "asked_of",
    "corpus_call",
    "known_of",
    "metric_of_set",
    "over_corpus",
    "sets_of",
]

CorpusProbe = Literal["linearity", "recall"]
"""Probes that read many other runs beside the shown one."""
BANK = "bank"
"""The 32 passages of 200 to 276 tokens that the mean bank is made of: the one built-in set whose prompts all have a dimension."""
LOSS_METRICS: Mapping[str, str] = {
    "id_gride": "intrinsic dimension (GRIDE)",
    "id_twonn": "intrinsic dimension (TwoNN)",
    "overlap_previous": "neighbours kept from the point before",
    "cosine": "mean pairwise cosine",
    "cosine_centred": "mean pairwise cosine, centred",
}
_CALLS = (ProbeCall("tokens"), GEOMETRY)


@dataclass(frozen=True)
class SetMetric:
    """A metric of every prompt of a set that was run, without sinks, beside its mean loss.

    ``prompts`` has ``id, group, prompt, tokens, loss, type_token_ratio``; ``values`` [prompts, points] are NaN where undefined;
    ``table`` is that of :func:`analysis.loss_correlation.loss_correlation`.
    """

    prompts: pd.DataFrame
    values: np.ndarray
    table: pd.DataFrame


def sets_of(store: Store) -> dict[str, PromptSet]:
    """The sets that geometry can be asked of, by name: the bank, then all others."""
    texts = tuple(Prompt(one.id, one.text) for one in bank())
    return {one.name: one for one in (PromptSet(BANK, BUILT_IN, texts), *all_sets(store))}


def asked_of(view: View, name: str) -> SetAsk:
    """What is asked of each prompt of a set on the model of a run. Raises BadRequest for a set there is none of."""
    sets = sets_of(view.services.store)
    if name not in sets:
        raise BadRequest(f"There is no prompt set {name[:80]!r}; there are {', '.join(sets)}.")
    mine = view.info.request
    like = RunRequest(mine.model, (0,), _CALLS, dtype=mine.dtype, device=mine.device)
    bos = view.facts.bos_id is not None and mine.token_ids[0] == view.facts.bos_id
    return SetAsk(sets[name], like, bos=bos)


def known_of(view: View, name: str) -> Survey:
    """Which prompts of a set were run; where the services compute, all are. Raises Gap where that cannot be said."""
    try:
        asked = asked_of(view, name)
        found = survey(view.services, asked, view.facts)
        if view.services.computes and found.n_run < found.n_runnable:
            sweep_set(view.services.runner, view.services.shelf, asked, Progress())
            found = survey(view.services, asked, view.facts)
    except (BadRequest, OSError) as problem:
        raise Gap(markdown(sentence(problem))) from None
    return found


def corpus_call(view: View, name: str, probe: CorpusProbe) -> ProbeCall:
    """What is asked of a run with all prompts of a set for a corpus. Raises Gap until all of them were run."""
    known = known_of(view, name)
    if not known.n_runnable or known.n_run < known.n_runnable:
        raise Gap(f"{known.n_run} of {known.n_runnable} prompts of this set were run; it takes all of them.")
    return ProbeCall(probe, {"corpus": [str(run) for run in known.table["run_id"].dropna()]})


def over_corpus(view: View, name: str, probe: CorpusProbe) -> View:
    """The answer of such a probe at the same selection: the one the view names, else the one over a set. Raises Gap."""
    for run in view.answers:
        found = view.services.open(run)
        if found is None or [call.name for call in found.info.request.probes] != [probe]:
            continue
        if found.info.request == view.info.request.with_probes(*found.info.request.probes):
            return view.beside(found)
    return view.beside(view.answer(corpus_call(view, name, probe)))


def metric_of_set(view: View, name: str, metric: str) -> SetMetric:
    """A metric of all prompts that were run against their loss. Raises Gap where none was."""
    known = known_of(view, name).table
    known = known[known["run_id"].notna() & known["perplexity"].notna()].reset_index(drop=True)
    if known.empty:
        raise Gap("No prompt of this set was run with its geometry yet.")
    runs = tuple(str(run) for run in known["run_id"])
    found: SetMetric = view.memo(
        ("set metric", name, metric, runs), lambda: _gathered(view, known, f"{metric}@no_sink")
    )
    return found


def _gathered(view: View, known: pd.DataFrame, metric: str) -> SetMetric:
    points = range(view.facts.n_layers + 1)
    values, ratios = [], []
    for run in known["run_id"]:
        result = view.services.open(str(run))
        if result is None:
            raise Gap("A run of this set is no longer stored.")
        rows = result.table("layer_metrics")
        of_point = rows[rows["metric"] == metric].set_index("layer")["value"].astype(float)
        values.append(of_point.reindex(points).to_numpy())
        ratios.append(type_token_ratio(result.info.request.token_ids))
    prompts = known[["id", "group", "prompt", "tokens"]].assign(
        tokens=known["tokens"].astype(float), loss=np.log(known["perplexity"].astype(float)), type_token_ratio=ratios
    )
    stacked = np.array(values, dtype=np.float64)
    controls = prompts[["tokens", "type_token_ratio"]].to_numpy(dtype=np.float64)
    return SetMetric(prompts, stacked, loss_correlation(stacked, prompts["loss"].to_numpy(dtype=np.float64), controls))
