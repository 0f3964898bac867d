"""Quality of an SAE on text it has not seen: how well it rebuilds states, and how well the model works on what it rebuilds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from analysis.measured import Measured
from analysis.sae_metrics import ReconstructionQuality
from analysis.sae_quality import Activity, FitSums, density_bins
from cache import Store
from probes.errors import BadRequest, NonFinite
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.folder import content_digest
from probes.saes.loading import LoadedSAE
from probes.saes.quality_loss import Loss, Rows
from probes.saes.quality_text import BUILTIN, Batch, batches, corpus_name, first_of
from probes.saes.reading import kept, resid_at
from probes.saes.sequences import TextSequence

__all__ = ["FIRED", "LOSS_TOKENS", "SAEQuality", "check_sae", "store_quality"]

LOSS_TOKENS = 4_096
FIRED = "fired"
"""The kind under which the store keeps on how many tokens each latent fired: ``{"n": ..., "fired": [...]}``."""


@dataclass(frozen=True, eq=False)
class SAEQuality:
    """Rows as the table ``sae_quality`` takes them; :meth:`value` gives one of them.

    ``fired``: on how many of the ``n`` tokens that count each latent fired.
    """

    rows: tuple[dict[str, Any], ...]
    n: int
    fired: tuple[int, ...]

    def value(self, metric: str) -> float:
        """A number over the whole text. Raises KeyError."""
        for row in self.rows:
            if row["metric"] == metric and row["pos"] is None:
                return float(row["value"])
        raise KeyError(metric)


def check_sae(
    model: LoadedModel,
    sae: LoadedSAE,
    sequences: Sequence[TextSequence],
    *,
    name: str = BUILTIN,
    loss_tokens: int = LOSS_TOKENS,
    progress: Progress | None = None,
) -> SAEQuality:
    """Measure an SAE on sequences of tokens.

    Plain metrics leave out position 0 and massive tokens (norm above ten times the median of their batch), and only states
    that are kept are replaced where the loss is measured; ``@all`` keeps every position. The loss takes the rest of the
    model five times, so it is measured on the first ``loss_tokens`` tokens (0: not at all).

    Raises:
        BadRequest: there is no token to measure on.
        NonFinite: the model or the SAE gave values that are not finite.
        Cancelled: it was stopped; nothing is kept.
    """
    progress = progress or Progress()
    if sum(len(one.ids) - 1 for one in sequences) < 1:
        raise BadRequest("Quality needs at least 1 token besides the first of a text.")
    parts = list(batches(sequences))
    fit = _Fit(sae)
    n_loss = first_of(parts, loss_tokens)
    split = len(parts) / (len(parts) + 5.0 * n_loss)
    for done, batch in enumerate(parts):
        progress.step(split * done / len(parts), f"states, batch {done + 1} of {len(parts)}")
        fit.add(batch, resid_at(model, batch.ids, sae.info.point))
    loss = Loss(model, sae, fit.plain.mean.float())
    for done, batch in enumerate(parts[:n_loss]):
        progress.step(split + (1 - split) * done / n_loss, f"loss, batch {done + 1} of {n_loss}")
        loss.add(batch)
    measured = fit.measured() | loss.measured()
    whose = {
        "content": content_digest(sae.info.folder),
        "sae": sae.info.name,
        "fingerprint": model.facts.fingerprint,
        "model": model.facts.name,
        "corpus": corpus_name(name, sequences),
    }
    rows = [
        {**whose, "metric": metric, "pos": pos, "value": one.value, "n_used": one.n_used, "status": one.status}
        for (metric, pos), one in measured.items()
    ]
    return SAEQuality(tuple(rows), fit.activity.n, tuple(fit.activity.fired.tolist()))


def store_quality(store: Store, quality: SAEQuality) -> None:
    """Keep a measurement: its rows, and how often each latent fired."""
    whose = quality.rows[0]
    fired = {"n": quality.n, "fired": quality.fired}
    store.put_answer(FIRED, whose["content"], whose["corpus"], whose["fingerprint"], fired)
    store.put_sae_quality(quality.rows)


class _Fit:
    """How well states are rebuilt: of what is kept, of all, and errors by position and by source."""

    def __init__(self, sae: LoadedSAE) -> None:
        self._sae = sae
        self.plain, self._all = FitSums(sae.info.d_in), FitSums(sae.info.d_in)
        self.activity = Activity(sae.info.d_sae)
        self._places: dict[tuple[str, int | None], list[float]] = {}

    def add(self, batch: Batch, states: Float32[Tensor, "batch tokens d_model"]) -> None:
        keep = kept(states)
        flat, counted = states.flatten(0, 1), keep.flatten()
        rebuilt, activations = self._sae.reconstruct(flat)
        if not torch.isfinite(rebuilt).all() or not torch.isfinite(states).all():
            raise NonFinite(f"{self._sae.info.name} gave values that are not finite on a text of {batch.sources[0]}.")
        counts = (activations > 0).sum(dim=1)
        self.activity.add(activations[counted])
        self._all.add(flat, rebuilt, counts)
        self.plain.add(flat[counted], rebuilt[counted], counts[counted])
        errors = (flat - rebuilt).double().square().sum(dim=1).view_as(keep) * keep
        for source, error, number in zip(batch.sources, errors.sum(dim=1), keep.sum(dim=1), strict=True):
            self._count(f"sae_explained_variance:{source}", None, error, number)
        for position, (error, number) in enumerate(zip(errors.sum(dim=0), keep.sum(dim=0), strict=True)):
            self._count("sae_explained_variance_by_pos", position, error, number)

    def _count(self, metric: str, position: int | None, error: Tensor, number: Tensor) -> None:
        sums = self._places.setdefault((metric, position), [0.0, 0.0])
        sums[0] += float(error)
        sums[1] += float(number)

    def measured(self) -> Rows:
        variance = self._sae.info.corpus_variance
        rows: Rows = {}
        for suffix, sums in (("", self.plain), ("@all", self._all)):
            rows |= _fit_rows(sums.quality(variance), suffix)
        common = variance or self._variance()  # one for all, or positions and sources could not be compared
        for place, (error, number) in self._places.items():
            if number and common:
                rows[place] = Measured(1.0 - error / (number * common), int(number))
        active = self.activity
        shares = {"never_fired": active.never, "dead": active.dead, "dense": active.dense}
        rows |= {(f"sae_{name}", None): share for name, share in shares.items()}
        for bar, count in density_bins(active.fired, active.n).items():
            rows["sae_density", bar] = Measured(float(count), active.n)
        for latents, count in enumerate(active.l0.tolist()):
            if count:
                rows["sae_l0_count", latents] = Measured(float(count), active.n)
        return rows

    def _variance(self) -> float | None:
        plain = self.plain
        spread = plain.square - float(plain.total.square().sum()) / max(plain.n, 1)
        return spread / plain.n if plain.n > 1 and spread > 0 else None


def _fit_rows(quality: ReconstructionQuality, suffix: str) -> Rows:
    own = quality.explained_variance_own
    named = {
        "l0": quality.l0,
        "explained_variance": quality.explained_variance,
        "explained_variance_own": own,
        "fvu": Measured(1.0 - own.value, own.n_used, own.status),
        "cosine": quality.cosine,
        "norm_ratio": quality.norm_ratio,
        "reconstruction_bias": quality.reconstruction_bias,
    }
    return {(f"sae_{name}{suffix}", None): one for name, one in named.items()}
