"""Absorption (docs/methods, Two SAEs): words whose letter is told by another latent than the ones that tell it elsewhere.

A latent for "begins with S" that is silent on "short", while a latent of "short" writes the S in its place, has been
absorbed. A word counts when a linear probe reads the letter right, every main latent of the letter is silent, and one
latent alone both carries the letter in the logits and points along the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor

from analysis.measured import Measured, undefined

__all__ = ["MIN_F1", "LetterProbe", "absorbed_words", "absorption_rate", "letter_probe", "silent"]

MIN_F1 = 0.8
SILENT = 1e-8
MIN_MARGIN = 1.0
MIN_COSINE = 0.025


@dataclass(frozen=True, eq=False)
class LetterProbe:
    """One logistic probe a letter: its direction in the states, what it says of each row, and F1 on the held-out rows."""

    letters: tuple[str, ...]
    directions: Float64[Tensor, "letters d_model"]
    said: Bool[Tensor, "rows letters"]
    f1: Mapping[str, float]

    @property
    def mean_f1(self) -> float:
        """Mean over letters."""
        return float(np.mean(list(self.f1.values())))


def letter_probe(
    states: Float[Tensor, "rows d_model"], letter: Sequence[str], held_out: Bool[Tensor, "rows"]
) -> LetterProbe:
    """Fit a probe for every letter on the rows that are not held out.

    Raises:
        ValueError: the rows to fit or to judge on lack a letter, or there is only one.
    """
    letters = tuple(sorted(set(letter)))
    own = np.asarray(letter)
    test = held_out.numpy()
    if len(letters) < 2 or any((own[part] == one).sum() == 0 for one in letters for part in (test, ~test)):
        raise ValueError("every letter, at least two, must be among the fitted and the held-out rows")
    x = states.double().numpy()
    mean, sd = x[~test].mean(axis=0), x[~test].std(axis=0).clip(min=1e-9)
    standard = (x - mean) / sd
    directions, said, scores = [], [], {}
    for one in letters:
        probe = LogisticRegression(C=0.01, max_iter=300, class_weight="balanced")
        probe.fit(standard[~test], own[~test] == one)
        yes = np.asarray(probe.predict(standard), dtype=bool)
        directions.append(probe.coef_[0] / sd)
        said.append(yes)
        scores[one] = float(f1_score(own[test] == one, yes[test], zero_division=0.0))
    return LetterProbe(
        letters, torch.from_numpy(np.stack(directions)), torch.from_numpy(np.stack(said, axis=1)), scores
    )


def silent(activations: Float[Tensor, "rows latents"], main: Sequence[int]) -> Bool[Tensor, "rows"]:
    """Rows on which none of the main latents fires."""
    if not main:
        return torch.ones(len(activations), dtype=torch.bool)
    return (activations[:, list(main)] < SILENT).all(dim=1)


def absorbed_words(
    effects: Float[Tensor, "rows latents"],
    direction: Float[Tensor, "d_model"],
    decoder: Float[Tensor, "latents d_model"],
    *,
    min_margin: float = MIN_MARGIN,
    min_cosine: float = MIN_COSINE,
) -> pd.DataFrame:
    """Rows ``row, latent, effect, margin, cosine, absorbed`` for words on which the probe is right and the main latents
    are silent.

    ``effects``: by how much ablating a latent changes the logit of the right letter less the mean of the others;
    ``latent`` is the one whose ablation hurts most, ``margin`` by how much more than the next.
    """
    table = []
    for row, effect in enumerate(effects.double()):
        lowest = effect.topk(min(2, len(effect)), largest=False)
        latent = int(lowest.indices[0])
        first = float(lowest.values[0])
        margin = float(lowest.values[-1]) - first
        cosine = float(torch.nn.functional.cosine_similarity(direction.double(), decoder[latent].double(), dim=0))
        absorbed = first < 0 and margin >= min_margin and cosine >= min_cosine
        table.append((row, latent, first, margin, cosine, absorbed))
    return pd.DataFrame(table, columns=["row", "latent", "effect", "margin", "cosine", "absorbed"])


def absorption_rate(n_absorbed: int, n_examined: int, n_candidates: int, n_right: int) -> Measured:
    """Share of the words whose letter the probe reads right that are absorbed.

    ``n_examined`` of the ``n_candidates`` words with silent main latents were looked at; the count is scaled up.
    ``not_applicable`` where the probe is right on no word.
    """
    if n_right == 0:
        return undefined("not_applicable")
    if n_candidates == 0:
        return Measured(0.0, n_right)
    if n_examined == 0:
        return undefined("not_requested", n_right)
    return Measured(n_absorbed / (n_examined / n_candidates) / n_right, n_right)
