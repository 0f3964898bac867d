"""Edits with an SAE made definite before they are keyed: which weights are meant, how large a latent typically is, and
which latents a concept prompt has."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32
from torch import Tensor

from cache.store import Store
from probes.errors import BadRequest
from probes.model.edits import Edit
from probes.model.forward import forward
from probes.model.sae_sources import Concept, Latent, SAESource, along_fault
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.saes.concept import read_concept
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.loading import SAEMismatch, choose, load_sae, misfit

if TYPE_CHECKING:
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["settle", "stored_size"]


def settle(edit: Edit, model: LoadedModel, token_ids: tuple[int, ...], store: Store) -> tuple[Edit, int]:
    """The edit with the digest of its SAE and the numbers it means, and the forward passes that took; edits without an
    SAE come back unchanged.

    Raises BadRequest in one sentence for an SAE that does not exist, has changed, does not fit the model, reads another
    point than the edit's, or has no such latent, and as :func:`_with_size` and :func:`_with_latents` do.
    """
    if not isinstance(edit.source, SAESource):
        return edit, 0
    edit, info = _with_content(edit, edit.source, model.facts)
    if isinstance(edit.source, Latent):
        return _with_size(edit, edit.source, model, token_ids, store)
    if isinstance(edit.source, Concept):
        return _with_latents(edit, edit.source, info, model)
    return edit, 0


def _with_content(edit: Edit, source: SAESource, facts: ModelFacts) -> tuple[Edit, SAEInfo]:
    info = choose(source.sae, facts)
    reason = misfit(info, facts)
    if reason is not None:
        raise SAEMismatch(reason)
    if edit.layer != info.point:
        raise BadRequest(
            f"Edit: {info.name} reads point {info.point}, so layer must be {info.point}, not {edit.layer}."
        )
    for name in ("latent", "latents", "along"):
        named = getattr(source, name, None) or 0
        largest = max(named) if isinstance(named, tuple) else named
        if largest >= info.d_sae:
            raise BadRequest(f"Edit: {name} of {info.name} lies in 0..{info.d_sae - 1}, not {largest}.")
    content = content_digest(info.folder)
    if source.content not in (None, content):
        raise BadRequest(f"Edit: the SAE {source.sae[:80]!r} has changed since this edit was made.")
    return dataclasses.replace(edit, source=dataclasses.replace(source, sae=info.name, content=content)), info


def stored_size(store: Store, content: str, fingerprint: str, latent: int) -> float | None:
    """The largest activation of a latent in the newest index of its SAE on this model; None without one, or if it never
    fired there."""
    index = store.sae_index(content, fingerprint)
    if index is None:
        return None
    rows = store.sae_table(str(index["index_id"]), "sae_latents", latent)
    largest = float(rows["max"].iloc[0]) if len(rows) else 0.0
    return largest if largest > 0 else None


def _with_size(
    edit: Edit, source: Latent, model: LoadedModel, token_ids: tuple[int, ...], store: Store
) -> tuple[Edit, int]:
    """With m_i said: the latent's largest activation in the index of its SAE; where there is none, its largest on this
    prompt, read in one clean pass. Raises BadRequest where it does not fire there either."""
    if source.add is None or source.typical is not None:
        return edit, 0
    size = stored_size(store, str(source.content), model.facts.fingerprint, source.latent)
    passes = 0
    if size is None:
        sae = load_sae(choose(source.sae, model.facts), model.facts)
        size, passes = float(sae.encode(_states(model, token_ids, edit.layer))[:, source.latent].max()), 1
    if not size > 0:
        raise BadRequest(
            f"Edit: latent {source.latent} of {source.sae[:80]} does not fire on this prompt and has no index that says "
            "how large it is; give its size as typical."
        )
    return dataclasses.replace(edit, source=dataclasses.replace(source, typical=size)), passes


def _with_latents(edit: Edit, source: Concept, info: SAEInfo, model: LoadedModel) -> tuple[Edit, int]:
    """With the latents of the concept prompt said, read in one clean pass of its own, after BOS where the model has one.

    Raises BadRequest for a prompt that cannot be read, and for a control that shares a latent or has another number.
    """
    passes = 0
    if source.latents is None:
        try:
            ids = text_ids(model, source.text)
        except BadRequest as problem:
            raise BadRequest(f"Edit, concept prompt: {problem}") from None
        states = _states(model, ids, edit.layer)
        found = read_concept(load_sae(info, model.facts), states)
        source, passes = dataclasses.replace(source, latents=found.latents, values=found.values), 1
        wrong = along_fault(source)
        if wrong is not None:
            raise BadRequest(f"Edit: {wrong}.")
    return dataclasses.replace(edit, source=source), passes


def _states(model: LoadedModel, token_ids: tuple[int, ...], point: int) -> Float32[Tensor, "tokens d_model"]:
    kept = forward(model, torch.tensor(token_ids), frozenset({"resid"}), frozenset(), Progress())
    return kept[f"resid.{point}"]
