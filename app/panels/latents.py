"""Panels of SAE latents: how well each token is rebuilt, which latents fire where, and what the selected one writes."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.figures.latents import effect_bars, fit_by_token, latent_map, latent_trace, strongest, token_bars
from app.panels.panel import POSITION, Drawn, Option, Place, panel
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest
from probes.request import ProbeCall
from probes.saes.folder import SAEInfo, installed_saes

__all__ = ["effect_call", "latent_in_sight", "latents_call", "latents_of", "outside_sinks", "read_with"]

_SAE = {"sae": Option(str, "latents-choice")}
_METRICS = ("sae_explained_variance", "sae_l0")
_NOT_ASKED = "This run did not ask for latents."
_LOST = "The store has dropped this run's token masks: only position 0 is set apart as a sink."
_DROPPED = "This was computed once and has been dropped to keep the store within its budget."
_UNINSTALLED = "The SAE is no longer installed."


def latents_call(sae: str) -> ProbeCall:
    """The question whose answer holds the run read with an SAE."""
    return ProbeCall("latents", {"sae": sae})


def read_with(view: View, sae: str) -> View:
    """The run read with an installed SAE by name; "" is the one it was run with. Raises Gap if that was not asked."""
    own = view.table("latents")
    if not sae or (not own.empty and sae == own["sae"].iloc[0]):
        return view
    return view.beside(view.answer(latents_call(sae)))


def latents_of(read: View) -> pd.DataFrame:
    """The strongest latents of every token. Raises Gap, with what the run remarked, if there are none."""
    latents = read.table("latents")
    if latents.empty:
        reasons = [note for note in read.info.notes if "SAE" in note]
        raise Gap(markdown(" ".join(reasons)) if reasons else _NOT_ASKED)
    return latents


def effect_call(read: View) -> ProbeCall:
    """The question whose answer says what the latent in sight writes. Raises Gap where its SAE cannot be asked."""
    latents, latent = latents_of(read), latent_in_sight(read)
    name = str(latents["sae"].iloc[0])
    info = _installed(name)
    if info is None:
        raise Gap(_UNINSTALLED)
    if latent >= info.d_sae:
        raise Gap("It has no such latent.")
    return _effect(name, latent)


@panel("latents-by-token", "latents", "Fit by token", "Which tokens does it rebuild badly?",
       ("latents", "Fit by token"), options=_SAE)  # fmt: skip
def by_token(view: View, sae: str = "") -> Drawn:
    read = read_with(view, sae)
    metrics = read.table("token_metrics")
    rows = metrics if metrics.empty else metrics[metrics["metric"].isin(_METRICS)]
    if rows.empty:
        raise Gap(_NOT_ASKED)
    (first, tokens), (no_sink, lost) = read.sight(), outside_sinks(read)
    figure = read.figure(
        "latents-by-token", lambda: fit_by_token(rows, tokens, no_sink, first=first), first, lost is None
    )
    missing = rows.loc[rows["metric"] == "sae_explained_variance", "value"].isna().all()
    said = "This SAE brings no corpus variance, so explained variance by token is missing." if missing else None
    return Drawn(figure, note=_joined(said, lost), csv=rows, place=POSITION)


@panel("latents-map", "latents", "Latents along the text", "Which latents fire most outside sinks, and where?",
       ("latents", "Latents along the text"), options=_SAE)  # fmt: skip
def along_text(view: View, sae: str = "") -> Drawn:
    read = read_with(view, sae)
    latents = latents_of(read)
    (first, tokens), (no_sink, lost) = read.sight(), outside_sinks(read)
    shown: list[int] = read.memo(("latents shown", lost is None), lambda: strongest(latents, no_sink))
    figure = read.figure(
        "latents-map", lambda: latent_map(latents, shown, tokens, no_sink, first=first), first, lost is None
    )
    return Drawn(figure, note=lost, csv=latents, place=Place("position", "latent", shown))


@panel("latents-token", "latents", "One token", "Which latents are strongest here?",
       ("latents", "One token"), options=_SAE)  # fmt: skip
def one_token(view: View, sae: str = "") -> Drawn:
    read, position = read_with(view, sae), view.selection.position
    latents = latents_of(read)
    rows = latents[latents["pos"] == position].sort_values("activation", ascending=False)
    title = f"Token {position} {markdown(read.token(position))}"
    if rows.empty:
        return Drawn(None, title, note="No latent is active at this token.")
    figure = read.figure("latents-token", lambda: token_bars(latents, position), position)
    return Drawn(figure, title, csv=rows, place=Place(y="latent", rows=[int(latent) for latent in rows["latent"]]))


@panel("latents-latent", "latents", "One latent", "Where in the text is it among the strongest?",
       ("latents", "One latent"), options=_SAE)  # fmt: skip
def one_latent(view: View, sae: str = "") -> Drawn:
    read = read_with(view, sae)
    latents, latent = latents_of(read), latent_in_sight(read)
    (first, tokens), (no_sink, lost) = read.sight(), outside_sinks(read)
    rows = latents[latents["latent"] == latent]
    figure = read.figure(
        "latents-latent",
        lambda: latent_trace(latents, latent, tokens, no_sink, first=first),
        *(latent, first, lost is None),
    )
    said = None if len(rows) else "It is not among the strongest latents of any token of this text."
    return Drawn(figure, f"Latent {latent}", note=_joined(said, lost), csv=rows, place=POSITION)


@panel("latents-effect", "latents", "Direct effect of a latent", "Which tokens does it make more and less likely?",
       ("latents", "One latent"), options=_SAE)  # fmt: skip
def effect(view: View, sae: str = "") -> Drawn:
    read = read_with(view, sae)
    latents, latent = latents_of(read), latent_in_sight(read)
    title, name = f"Direct effect of latent {latent}", str(latents["sae"].iloc[0])
    try:
        answer = read.find(_effect(name, latent)) or read.answer(effect_call(read))
    except (Gap, BadRequest) as problem:
        return Drawn(None, title, note=str(problem) if isinstance(problem, Gap) else markdown(str(problem)))
    ids, values, shape = (read.beside(answer).kept(f"effect_{part}") for part in ("ids", "values", "shape"))
    if ids is None or values is None or shape is None:
        return Drawn(None, title, note=_DROPPED)
    rows = [list(zip(read.decode(i), v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
    skewness, kurtosis = shape.tolist()
    return Drawn(
        read.figure("latents-effect", lambda: effect_bars(rows[0], rows[1]), answer.info.run_id),
        title,
        note=f"Over the vocabulary: skewness {skewness:.2f}, excess kurtosis {kurtosis:.2f}. Direct path only.",
        csv=pd.DataFrame([*rows[0], *rows[1]], columns=["token", "logit_per_unit"]),
    )


def _effect(sae: str, latent: int) -> ProbeCall:
    return ProbeCall("latent_effect", {"sae": sae, "latent": latent})


def _installed(name: str) -> SAEInfo | None:
    return next((sae.info for sae in installed_saes() if sae.name == name), None)


def latent_in_sight(read: View) -> int:
    """The selected latent, or the strongest at the selected token, or of the text."""
    if read.selection.latent is not None:
        return read.selection.latent
    latents = latents_of(read)
    here = latents[latents["pos"] == read.selection.position]
    rows = here if len(here) else latents[outside_sinks(read)[0][latents["pos"].to_numpy(dtype=int)]]
    rows = rows if len(rows) else latents
    return int(rows.loc[rows["activation"].idxmax(), "latent"])


def outside_sinks(read: View) -> tuple[NDArray[np.bool_], str | None]:
    """Tokens that are no sinks; where the store has dropped the mask, all but position 0, and a word on it."""
    mask = read.kept("no_sink")
    if mask is None:
        return np.arange(len(read.tokens)) > 0, _LOST
    return mask.numpy().astype(bool), None


def _joined(*notes: str | None) -> str | None:
    return " ".join(note for note in notes if note) or None
