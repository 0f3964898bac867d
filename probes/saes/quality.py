"""Quality of an SAE on text it has not seen: how well it rebuilds states, and how well the model works on what it rebuilds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from analysis.measured import Measured
from analysis.sae_metrics import ReconstructionQuality
from analysis.sae_quality import Activity, FitSums, density_bins, recovered
from cache.keys import digest
from probes.errors import BadRequest, NonFinite
from probes.model.loaded import LoadedModel
from probes.model.resume import resume
from probes.progress import Progress
from probes.prompts import bank
from probes.saes.folder import content_digest
from probes.saes.loading import LoadedSAE
from probes.saes.reading import MASSIVE_NORM, resid_at
from probes.saes.sequences import TextSequence, cut_documents

__all__ = ["BUILTIN", "LOSS_TOKENS", "TOKENS", "SAEQuality", "Text", "builtin_text", "check_sae", "corpus_name"]

BUILTIN = "built-in texts"
TOKENS, LOSS_TOKENS = 20_000, 4_096
_BATCH = 4


@dataclass(frozen=True, eq=False)
class SAEQuality:
    """Rows as the table ``sae_quality`` takes them; :meth:`value` gives one of them."""

    rows: tuple[dict[str, Any], ...]

    def value(self, metric: str) -> float:
        """A number over the whole text. Raises KeyError."""
        for row in self.rows:
            if row["metric"] == metric and row["pos"] is None:
                return float(row["value"])
        raise KeyError(metric)


@dataclass(frozen=True, slots=True)
class Text:
    """A text as a document to cut."""

    source: str
    name: str
    text: str
    conversations: tuple[tuple[str, ...], ...] = ()


def builtin_text(model: LoadedModel, n_tokens: int = TOKENS) -> tuple[TextSequence, ...]:
    """The texts of the mean bank, which no SAE was trained on, 128 tokens at a time; about 7,000 tokens."""
    texts = [Text(one.source.split(",")[0].removeprefix("own: "), one.id, one.text) for one in bank()]
    return cut_documents(texts, model, n_tokens=n_tokens)


def corpus_name(name: str, sequences: Sequence[TextSequence]) -> str:
    """How measurements on these sequences are told apart: ``name`` and what was really read."""
    read = digest([list(one.ids) for one in sequences])[:8]
    return f"{name}, {sum(len(one.ids) for one in sequences):,} tokens, {read}"


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
    batches = list(_batches(sequences))
    fit = _Fit(sae)
    n_loss = _first_of(batches, loss_tokens)
    split = len(batches) / (len(batches) + 5.0 * n_loss)
    for done, batch in enumerate(batches):
        progress.step(split * done / len(batches), f"states, batch {done + 1} of {len(batches)}")
        fit.add(batch, resid_at(model, batch.ids, sae.info.point))
    loss = _Loss(model, sae, fit.plain.mean.float())
    for done, batch in enumerate(batches[:n_loss]):
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
    return SAEQuality(tuple(rows))


Rows = dict[tuple[str, int | None], Measured]


@dataclass(frozen=True, eq=False)
class _Batch:
    ids: Int64[Tensor, "batch tokens"]
    sources: tuple[str, ...]


def _batches(sequences: Sequence[TextSequence]) -> Iterator[_Batch]:
    """Neighbours of equal length together, so that nothing is padded; shuffled, so that any first few are a fair sample."""
    found = []
    for _, alike in itertools.groupby(sorted(sequences, key=lambda one: -len(one.ids)), key=lambda one: len(one.ids)):
        equal = list(alike)
        for first in range(0, len(equal), _BATCH):
            part = equal[first : first + _BATCH]
            found.append(_Batch(torch.tensor([one.ids for one in part]), tuple(one.source for one in part)))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    yield from (found[at] for at in order)


def _first_of(batches: Sequence[_Batch], tokens: int) -> int:
    """How many batches it takes to have so many tokens; all where there are fewer."""
    total = 0
    for count, batch in enumerate(batches):
        if total >= tokens:
            return count
        total += batch.ids.numel()
    return len(batches)


def _kept(states: Float32[Tensor, "batch tokens d_model"]) -> Bool[Tensor, "batch tokens"]:
    norms = states[:, 1:].norm(dim=-1)
    keep = torch.zeros(states.shape[:2], dtype=torch.bool)
    if norms.numel():
        keep[:, 1:] = norms <= MASSIVE_NORM * norms.median()
    return keep


class _Fit:
    """How well states are rebuilt: of what is kept, of all, and errors by position and by source."""

    def __init__(self, sae: LoadedSAE) -> None:
        self._sae = sae
        self.plain, self._all = FitSums(sae.info.d_in), FitSums(sae.info.d_in)
        self._activity = Activity(sae.info.d_sae)
        self._places: dict[tuple[str, int | None], list[float]] = {}

    def add(self, batch: _Batch, states: Float32[Tensor, "batch tokens d_model"]) -> None:
        keep = _kept(states)
        flat, kept = states.flatten(0, 1), keep.flatten()
        rebuilt, activations = self._sae.reconstruct(flat)
        if not torch.isfinite(rebuilt).all() or not torch.isfinite(states).all():
            raise NonFinite(f"{self._sae.info.name} gave values that are not finite on a text of {batch.sources[0]}.")
        counts = (activations > 0).sum(dim=1)
        self._activity.add(activations[kept])
        self._all.add(flat, rebuilt, counts)
        self.plain.add(flat[kept], rebuilt[kept], counts[kept])
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
        active = self._activity
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


class _Loss:
    """What predicting the next token costs from the states, from what the SAE rebuilds, and from two things that are none."""

    def __init__(self, model: LoadedModel, sae: LoadedSAE, mean: Float32[Tensor, " d_model"]) -> None:
        self._model, self._sae, self._mean = model, sae, mean
        self._n = 0
        self._sums: dict[str, float] = {}

    def add(self, batch: _Batch) -> None:
        states = resid_at(self._model, batch.ids, self._sae.info.point)
        keep = _kept(states)
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
        self, batch: _Batch, states: Float32[Tensor, "batch tokens d_model"]
    ) -> Float32[Tensor, "predictions d_vocab"]:
        last = resume(self._model, batch.ids[0], self._sae.info.point, states)[:, :-1]
        return self._model.unembed(last.flatten(0, 1)).log_softmax(dim=-1).cpu()

    def _count(self, name: str, log_probs: Tensor, targets: Tensor) -> None:
        loss = -float(log_probs.gather(1, targets[:, None]).double().sum())
        self._sums[name] = self._sums.get(name, 0.0) + loss

    def measured(self) -> Rows:
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
