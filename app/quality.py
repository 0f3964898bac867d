"""Measuring SAEs in the background, and what the store knows of those that fit a model. No streamlit."""

from collections.abc import Mapping

import pandas as pd
import torch

from analysis.sae_quality import density_bars
from app.jobs import Job, Key
from app.services import Services
from cache import Store
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.saes.folder import SAEInfo, content_digest, installed_saes
from probes.saes.loading import load_sae, misfit
from probes.saes.quality import FIRED, LOSS_TOKENS, check_sae, store_quality
from probes.saes.quality_text import BUILTIN, TOKENS, builtin_text
from probes.saes.sequences import FileText, cut_documents

__all__ = ["fitting", "in_bar", "measure", "measured", "quality_key"]


def fitting(facts: ModelFacts) -> dict[str, SAEInfo]:
    """The installed SAEs that read this model, by name."""
    found = (sae.info for sae in installed_saes())
    return {info.name: info for info in found if info is not None and misfit(info, facts) is None}


def measured(store: Store, facts: ModelFacts, info: SAEInfo) -> Mapping[str, pd.DataFrame]:
    """What was measured of an SAE on this model: the rows of each corpus, the newest first."""
    rows = store.sae_quality(content_digest(info.folder))
    rows = rows[rows["fingerprint"] == facts.fingerprint]
    newest = rows.groupby("corpus")["created"].max().sort_values(ascending=False)
    return {str(corpus): rows[rows["corpus"] == corpus] for corpus in newest.index}


def in_bar(store: Store, facts: ModelFacts, info: SAEInfo, corpus: str, bar: int) -> pd.DataFrame | None:
    """The latents in a bar of the density histogram (`analysis.sae_quality.density_bars`), those that fire most first:
    ``latent, n_fired, density``. None where the counts were not kept."""
    kept = store.answer(FIRED, content_digest(info.folder), corpus, facts.fingerprint)
    if kept is None:
        return None
    fired = torch.tensor(kept["fired"], dtype=torch.int64)
    latents = torch.nonzero(density_bars(fired, kept["n"]) == bar)[:, 0]
    table = pd.DataFrame({"latent": latents.numpy(), "n_fired": fired[latents].numpy()})
    table["density"] = table["n_fired"] / max(kept["n"], 1)
    return table.sort_values(["n_fired", "latent"], ascending=[False, True], ignore_index=True)


def quality_key(sae: str, name: str) -> Key:
    """Under which the desk knows a measurement."""
    return ("quality", sae, name)


def measure(
    held: Services,
    request: tuple[str, str, str],
    sae: SAEInfo,
    text: FileText | None = None,
    loss_tokens: int = LOSS_TOKENS,
) -> Job:
    """Measure an SAE on built-in texts, or on ``text``, and store what was found; ``request`` is model, dtype, device."""
    name = BUILTIN if text is None else text.name

    def work(progress: Progress) -> str:
        model = held.shelf.get(*request, progress=progress.part(0.0, 0.1))
        reason = misfit(sae, model.facts)
        if reason is not None:
            raise BadRequest(reason)
        read = load_sae(sae, model.facts)
        given = builtin_text(model, TOKENS) if text is None else cut_documents([text], model, n_tokens=TOKENS)
        part = progress.part(0.1, 1.0)
        quality = check_sae(model, read, given, name=name, loss_tokens=loss_tokens, progress=part)
        store_quality(held.store, quality)
        return str(quality.rows[0]["corpus"])

    return held.desk.submit(request[0], quality_key(sae.name, name), f"Measure {sae.name}", work)
