"""Edits with an SAE made definite before they are keyed: which weights are meant, and how large a latent typically is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from cache.store import Store
from probes.errors import BadRequest
from probes.model.edits import Edit
from probes.model.forward import forward
from probes.model.sae_sources import Latent, Rebuilt
from probes.progress import Progress
from probes.saes.folder import content_digest
from probes.saes.loading import SAEMismatch, choose, load_sae, misfit

if TYPE_CHECKING:
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["settled_edit", "stored_size", "typical_size"]


def settled_edit(edit: Edit, facts: ModelFacts) -> Edit:
    """The edit with the digest of its SAE. Its ``typical`` is left as it is; other edits come back unchanged.

    Raises BadRequest in one sentence for an SAE that does not exist, has changed, does not fit the model, reads another
    point than the edit's, or has no such latent.
    """
    source = edit.source
    if not isinstance(source, Rebuilt | Latent):
        return edit
    info = choose(source.sae, facts)
    reason = misfit(info, facts)
    if reason is not None:
        raise SAEMismatch(reason)
    if edit.layer != info.point:
        raise BadRequest(
            f"Edit: {info.name} reads point {info.point}, so layer must be {info.point}, not {edit.layer}."
        )
    if isinstance(source, Latent):
        for name, index in (("latent", source.latent), ("along", source.along)):
            if index is not None and index >= info.d_sae:
                raise BadRequest(f"Edit: {name} of {info.name} lies in 0..{info.d_sae - 1}, not {index}.")
    content = content_digest(info.folder)
    if source.content not in (None, content):
        raise BadRequest(f"Edit: the SAE {source.sae[:80]!r} has changed since this edit was made.")
    return dataclasses.replace(edit, source=dataclasses.replace(source, sae=info.name, content=content))


def stored_size(store: Store, content: str, fingerprint: str, latent: int) -> float | None:
    """The largest activation of a latent in the newest index of its SAE on this model; None without one, or if it never
    fired there."""
    index = store.sae_index(content, fingerprint)
    if index is None:
        return None
    rows = store.sae_table(str(index["index_id"]), "sae_latents", latent)
    largest = float(rows["max"].iloc[0]) if len(rows) else 0.0
    return largest if largest > 0 else None


def typical_size(edit: Edit, model: LoadedModel, token_ids: tuple[int, ...], store: Store) -> tuple[Edit, int]:
    """A settled edit with m_i said, and the forward passes that took.

    m_i is the latent's largest activation in the index of its SAE; where there is none, its largest on this prompt, read
    in one clean pass. Raises BadRequest where it does not fire there either.
    """
    source = edit.source
    if not isinstance(source, Latent) or source.add is None or source.typical is not None:
        return edit, 0
    size = stored_size(store, str(source.content), model.facts.fingerprint, source.latent)
    passes = 0
    if size is None:
        sae = load_sae(choose(source.sae, model.facts), model.facts)
        kept = forward(model, torch.tensor(token_ids), frozenset({"resid"}), frozenset(), Progress())
        size, passes = float(sae.encode(kept[f"resid.{edit.layer}"])[:, source.latent].max()), 1
    if not size > 0:
        raise BadRequest(
            f"Edit: latent {source.latent} of {source.sae[:80]} does not fire on this prompt and has no index that says "
            "how large it is; give its size as typical."
        )
    return dataclasses.replace(edit, source=dataclasses.replace(source, typical=size)), passes
