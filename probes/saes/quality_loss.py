"""What an SAE costs the model: its states replaced by what is rebuilt, and by two things that are nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32
from torch import Tensor

from analysis.measured import Measured
from analysis.sae_quality import recovered
from probes.model.loaded import LoadedModel
from probes.model.resume import resume
from probes.saes.loading import LoadedSAE
from probes.saes.quality_text import Batch
from probes.saes.reading import kept, resid_at

__all__ = ["Loss", "Rows"]

Rows = dict[tuple[str, int | None], Measured]
"""Measured numbers by metric and position (None: of the whole)."""


class Loss:
    """What predicting the next token costs from the states, from what the SAE rebuilds, and from two things that are none."""

    def __init__(self, model: LoadedModel, sae: LoadedSAE, mean: Float32[Tensor, " d_model"]) -> None:
        self._model, self._sae, self._mean = model, sae, mean
        self._n = 0
        self._sums: dict[str, float] = {}

    def add(self, batch: Batch) -> None:
        """Predict each next token of a batch in every way."""
        states = resid_at(self._model, batch.ids, self._sae.info.point)
        keep = kept(states)
        rebuilt = self._sae.reconstruct(states.flatten(0, 1))[0].view_as(states)
        replaced: Mapping[str, Tensor] = {
            "sae": torch.where(keep[..., None], rebuilt, states),
            "zero": torch.where(keep[..., None], torch.zeros_like(states), states),
            "mean": torch.where(keep[..., None], self._mean.expand_as(states), states),
            "sae@all": rebuilt,
            "zero@all": torch.zeros_like(states),
        }
        targets = batch.ids[:, 1:].flatten()
        clean = self._log_probs(batch, states)
        self._n += len(targets)
        self._count("clean", clean, targets)
        for name, changed in replaced.items():
            found = self._log_probs(batch, changed)
            self._count(name, found, targets)
            if name.startswith("sae"):
                kl = (clean.exp() * (clean - found)).sum(dim=-1).double().sum()
                self._sums[name.replace("sae", "kl")] = self._sums.get(name.replace("sae", "kl"), 0.0) + float(kl)

    def _log_probs(
        self, batch: Batch, states: Float32[Tensor, "batch tokens d_model"]
    ) -> Float32[Tensor, "predictions d_vocab"]:
        last = resume(self._model, batch.ids[0], self._sae.info.point, states)[:, :-1]
        return self._model.unembed(last.flatten(0, 1)).log_softmax(dim=-1).cpu()

    def _count(self, name: str, log_probs: Tensor, targets: Tensor) -> None:
        loss = -float(log_probs.gather(1, targets[:, None]).double().sum())
        self._sums[name] = self._sums.get(name, 0.0) + loss

    def measured(self) -> Rows:
        """The losses and what is recovered, over all that was added."""
        if not self._n:
            return {}
        mean = {name: total / self._n for name, total in self._sums.items()}
        rows: Rows = {(f"ce_{n}", None): self._said(v) for n, v in mean.items() if not n.startswith("kl")}
        for suffix in ("", "@all"):
            rebuilt = mean[f"sae{suffix}"]
            rows[f"kl{suffix}", None] = self._said(mean[f"kl{suffix}"])
            rows[f"delta_ce{suffix}", None] = self._said(rebuilt - mean["clean"])
            zero = recovered(mean[f"zero{suffix}"], rebuilt, mean["clean"], self._n)
            rows[f"ce_recovered_zero{suffix}", None] = zero
        rows["ce_recovered_mean", None] = recovered(mean["mean"], mean["sae"], mean["clean"], self._n)
        return rows

    def _said(self, value: float) -> Measured:
        if value != value or value in (float("inf"), float("-inf")):
            return Measured(float("nan"), self._n, "non_finite")
        return Measured(value, self._n)
