"""Latents: which features of a sparse autoencoder are active at each token, and how well it rebuilds the states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from analysis.measured import Measured
from analysis.sae_metrics import reconstruction_quality, token_explained_variance
from probes.probe import Context, ProbeSpec, Result
from probes.saes.folder import SAEInfo, content_digest, installed_folders, installed_saes
from probes.saes.loading import LoadedSAE, SAEMismatch, choose, load_sae, misfit

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_CHUNK = 512


@dataclass(frozen=True)
class Params:
    """``sae``: an installed SAE by name, or "auto", the first that was made for the model. ``top``: latents per token.

    ``content`` follows from ``sae``: a hash of the folders it can mean, so that a result is never mistaken for one of
    another SAE under the same name.
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str = "auto"
    top: int = 16
    content: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sae, str) or not self.sae:
            raise ValueError(f'latents.sae must be "auto" or the name of an installed SAE, not {str(self.sae)[:80]!r}')
        whole = isinstance(self.top, int) and not isinstance(self.top, bool)
        if not whole or not 1 <= self.top <= 256:
            raise ValueError(f"latents.top must be a whole number from 1 to 256, not {str(self.top)[:80]!r}")
        object.__setattr__(self, "content", _content(self.sae))


spec = ProbeSpec(
    name="latents",
    version=2,
    question="Which SAE latents are active at each token, and how much of the state do they explain?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("latents", "token_metrics", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    """Whether any installed SAE could read this model."""
    usable = [found.info for found in installed_saes() if found.info is not None]
    if any(misfit(info, model.facts) is None for info in usable):
        return None
    return f"no installed SAE fits {model.facts.name} ({model.facts.d_model} residual dimensions)"


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """The SAE, one chunk of activations and their selection, and float64 copies of states and reconstructions.

    Raises BadRequest here, before anything runs, for an SAE that does not exist, cannot be read or does not fit.
    """
    info = _chosen(params, facts)
    if info is None:
        return 0
    reason = misfit(info, facts)
    if reason is not None:
        raise SAEMismatch(reason)
    weights = 2 * info.d_in * info.d_sae * 4
    return 2 * weights + 3 * min(_CHUNK, n_tokens) * info.d_sae * 4 + 5 * n_tokens * info.d_in * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Tables at the SAE's own point.

    ``latents``: the ``top`` strongest active latents of each token. ``token_metrics``: ``sae_l0`` and
    ``sae_explained_variance`` = 1 - |x - x_hat|^2 / corpus variance. ``layer_metrics``: ``sae_l0``,
    ``sae_explained_variance`` (corpus variance), ``sae_explained_variance_own`` (variance of the tokens at hand),
    ``sae_cosine``, ``sae_norm_ratio`` and ``sae_reconstruction_bias`` over the tokens of the mask that are neither
    position 0, nor massive, nor sinks (the tensor ``no_sink``), and with ``@all`` over all tokens of the mask.
    """
    facts = capture.model.facts
    info = _chosen(params, facts)
    if info is None:
        return Result({}, notes=(f"No SAE was used: none of those installed was made for {facts.name}.",))
    sae = load_sae(info, facts)
    resid = capture.resid(info.point)
    reading = _read(sae, resid, params.top, context)
    keep: Bool[Tensor, " tokens"] = getattr(capture.masks, context.mask)
    layers = [
        *_layer_rows("", resid, reading, keep & capture.masks.no_sink, info),
        *_layer_rows("@all", resid, reading, keep, info),
    ]
    return Result(
        {
            "latents": _latent_rows(reading, info),
            "token_metrics": _token_rows(resid, reading, info),
            "layer_metrics": pd.DataFrame(layers, columns=["layer", "metric", "value", "n_used", "status"]),
        },
        tensors={"no_sink": capture.masks.no_sink.to(torch.uint8)},
        notes=_notes(sae, capture),
    )


@dataclass(frozen=True, eq=False)
class _Reading:
    """What an SAE made of the states: reconstructions, active latents per token, and the strongest of them."""

    rebuilt: Float32[Tensor, "tokens d_model"]
    n_active: Int64[Tensor, " tokens"]
    latent: Int64[Tensor, "tokens top"]
    activation: Float32[Tensor, "tokens top"]


def _read(sae: LoadedSAE, resid: Float32[Tensor, "tokens d_model"], top: int, context: Context) -> _Reading:
    """Chunk by chunk, so that wide SAEs and long prompts never meet in one matrix."""
    rebuilt, counts, latents, strengths = [], [], [], []
    for first in range(0, len(resid), _CHUNK):
        context.progress.step(first / len(resid), f"SAE latents, tokens from {first}")
        back, activations = sae.reconstruct(resid[first : first + _CHUNK])
        strongest = activations.topk(min(top, activations.shape[1]), dim=1)
        rebuilt.append(back)
        counts.append((activations > 0).sum(dim=1))
        latents.append(strongest.indices)
        strengths.append(strongest.values)
    return _Reading(torch.cat(rebuilt), torch.cat(counts), torch.cat(latents), torch.cat(strengths))


def _latent_rows(reading: _Reading, info: SAEInfo) -> pd.DataFrame:
    pos, rank = np.nonzero(reading.activation.numpy() > 0)
    return pd.DataFrame(
        {
            "sae": info.name,
            "layer": info.point,
            "pos": pos,
            "latent": reading.latent.numpy()[pos, rank],
            "activation": reading.activation.double().numpy()[pos, rank],
        }
    )


def _token_rows(resid: Float32[Tensor, "tokens d_model"], reading: _Reading, info: SAEInfo) -> pd.DataFrame:
    pos = np.arange(len(resid))
    l0 = pd.DataFrame({"pos": pos, "metric": "sae_l0", "value": reading.n_active.double().numpy(), "status": "ok"})
    if info.corpus_variance is None:
        explained = pd.DataFrame({"pos": pos, "value": np.nan, "status": "not_applicable"})
    else:
        values = token_explained_variance(resid, reading.rebuilt, info.corpus_variance)
        explained = pd.DataFrame({"pos": pos, "value": values.numpy(), "status": "ok"})
    frame = pd.concat([l0, explained.assign(metric="sae_explained_variance")], ignore_index=True)
    frame = frame.assign(layer=info.point, n_used=1).astype({"layer": "Int64"})
    return frame[["layer", "pos", "metric", "value", "n_used", "status"]]


def _layer_rows(
    suffix: str,
    resid: Float32[Tensor, "tokens d_model"],
    reading: _Reading,
    keep: Bool[Tensor, " tokens"],
    info: SAEInfo,
) -> list[tuple[int, str, float, int, str]]:
    quality = reconstruction_quality(resid, reading.rebuilt, reading.n_active, keep, info.corpus_variance)
    named: dict[str, Measured] = {
        "sae_l0": quality.l0,
        "sae_explained_variance": quality.explained_variance,
        "sae_explained_variance_own": quality.explained_variance_own,
        "sae_cosine": quality.cosine,
        "sae_norm_ratio": quality.norm_ratio,
        "sae_reconstruction_bias": quality.reconstruction_bias,
    }
    return [(info.point, name + suffix, m.value, m.n_used, m.status) for name, m in named.items()]


def _notes(sae: LoadedSAE, capture: Capture) -> tuple[str, ...]:
    info = sae.info
    notes = list(sae.notes)
    if info.remark:
        notes.append(f"SAE {info.name} is {info.remark}.")
    if info.corpus_variance is None:
        notes.append(
            f"SAE {info.name} brings no corpus variance, so its explained variance is only against the prompt's own."
        )
    if info.context_size is not None and capture.n_tokens > info.context_size:
        notes.append(
            f"SAE {info.name} was trained on {info.context_size} tokens at a time; the prompt has {capture.n_tokens}."
        )
    return tuple(notes)


def _chosen(params: Params, facts: ModelFacts) -> SAEInfo | None:
    """None only for ``auto`` where no SAE was made for the model: a default must not fail a whole run."""
    try:
        return choose(params.sae, facts)
    except SAEMismatch:
        if params.sae == "auto":
            return None
        raise


def _content(name: str) -> str:
    meant = {found: folder for found, folder in installed_folders().items() if name in ("auto", found)}
    return " ".join(f"{found}:{content_digest(folder)}" for found, folder in meant.items())
