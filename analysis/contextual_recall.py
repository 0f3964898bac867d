"""Does a state tell which words stood before it? A probe in the spirit of LLM-Microscope's contextual memory, not their C.

Their C (Razzhigaev et al. 2025, arXiv 2502.15007) takes a decoder trained to write the prefix again. This light probe of our
own is a ridge regression from 64 principal components of one layer to which frequent tokens stand in the window before.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.metrics import average_precision_score

from analysis.measured import Measured, undefined

__all__ = [
    "COMPONENTS",
    "MIN_TEXTS",
    "VOCABULARY",
    "WINDOW",
    "frequent_tokens",
    "mean_precision",
    "position_features",
    "window_targets",
]

COMPONENTS: Final = 64
VOCABULARY: Final = 500
WINDOW: Final = 32
MIN_TEXTS: Final = 10
_FOLDS = 5
_PENALTY = 1.0  # of standardised features, against the sum of squares of the training rows


def frequent_tokens(token_ids: Int64[np.ndarray, " n"], text: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " words"]:
    """The 500 tokens that stand in most texts, at least in as many as there are folds; smaller ids first among equals."""
    pairs = np.unique(np.stack([token_ids, text], axis=1), axis=0)
    words, texts = np.unique(pairs[:, 0], return_counts=True)
    order = np.lexsort((words, -texts))
    common: Int64[np.ndarray, " words"] = words[order][texts[order] >= _FOLDS][:VOCABULARY]
    return common


def window_targets(
    token_ids: Int64[np.ndarray, " n"], text: Int64[np.ndarray, " n"], vocabulary: Int64[np.ndarray, " words"]
) -> Bool[np.ndarray, "n words"]:
    """Whether each word is among the 32 tokens *before* each token of the same text; the token itself does not count."""
    found = token_ids[:, None] == vocabulary[None, :]
    inside: Bool[np.ndarray, "n words"] = np.zeros_like(found)
    for back in range(1, min(WINDOW + 1, len(token_ids))):
        inside[back:] |= found[:-back] & (text[back:] == text[:-back])[:, None]
    return inside


def position_features(position: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 6"]:
    """What the position alone can tell of a window: how far it is filled, and slow trends along a text."""
    filled = np.minimum(position, WINDOW) / WINDOW
    along = position / max(int(position.max()), 1)
    return np.stack([filled, filled**2, np.sqrt(filled), along, along**2, along**3], axis=1)


def mean_precision(
    features: Float64[np.ndarray, "n k"], targets: Bool[np.ndarray, "n words"], text: Int64[np.ndarray, " n"]
) -> Measured:
    """Average precision of a ridge regression on the first 64 principal components of the features, mean over words.

    Five folds of whole texts: mean, components and regression are those of the training texts. A word counts in a fold
    where it has both classes in the training and in the test texts. ``n_used`` is the number of texts; fewer than 10 is
    ``too_few_prompts``, no word that counts ``single_class``. Its chance level is the share of windows with the word.
    """
    texts = np.unique(text)
    if not np.isfinite(features).all():
        return undefined("non_finite", len(texts))
    if len(texts) < MIN_TEXTS:
        return undefined("too_few_prompts", len(texts))
    scores: list[float] = []
    for fold in range(_FOLDS):
        test = np.isin(text, texts[fold::_FOLDS])
        known, asked = targets[~test], targets[test]
        usable = np.flatnonzero(_mixed(known) & _mixed(asked))
        if len(usable):
            found = _predicted(_components(features, test), known[:, usable].astype(np.float64), test)
            scores += [float(average_precision_score(asked[:, w], one)) for w, one in zip(usable, found.T, strict=True)]
    return Measured(float(np.mean(scores)), len(texts)) if scores else undefined("single_class", len(texts))


def _components(x: Float64[np.ndarray, "n k"], test: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, "n c"]:
    """All rows in the first principal components of the training rows, each with their variance there."""
    centred = x - x[~test].mean(axis=0)
    energy, directions = np.linalg.eigh(centred[~test].T @ centred[~test])
    kept = np.flatnonzero(energy > energy[-1] * 1e-12)[::-1][:COMPONENTS]
    scale = np.sqrt(energy[kept] / np.count_nonzero(~test))
    projected: Float64[np.ndarray, "n c"] = centred @ directions[:, kept] / scale
    return projected


def _predicted(
    x: Float64[np.ndarray, "n c"], known: Float64[np.ndarray, "trained words"], test: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, "tested words"]:
    train, base = x[~test], known.mean(axis=0)
    weight = np.linalg.solve(train.T @ train + _PENALTY * np.eye(x.shape[1]), train.T @ (known - base))
    predicted: Float64[np.ndarray, "tested words"] = x[test] @ weight + base
    return predicted


def _mixed(flags: Bool[np.ndarray, "n words"]) -> Bool[np.ndarray, " words"]:
    share = flags.mean(axis=0)
    mixed: Bool[np.ndarray, " words"] = (share > 0) & (share < 1)
    return mixed
