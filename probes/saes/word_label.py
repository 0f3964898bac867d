"""A word for a latent, searched by gradient descent in token space against the model itself as the judge (core.md 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from analysis.roc import auc
from analysis.token_descent import DescentRules, Ending, descend
from cache.store import Store
from probes.errors import BadRequest
from probes.model.catalog import base_name
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces
from probes.progress import Progress
from probes.saes.folder import content_digest
from probes.saes.judge import Judge, Texts, whole_words
from probes.saes.judge_check import JudgeCheck, check_judge
from probes.saes.label_examples import LabelExamples, label_examples
from probes.saes.loading import LoadedSAE, SAEMismatch

__all__ = ["FoundWord", "WordLabel", "search_label", "stored_label"]

_KIND = "word-label"
_KEPT = 5
_BEYOND_CHANCE = 2.0


@dataclass(frozen=True, slots=True)
class FoundWord:
    """A word near which one of the restarts ended: the share p it had there, its cross-entropy (nats) on the texts searched with,
    and its AUC on the texts held out."""

    word: str
    probability: float
    cross_entropy: float
    auc: float


@dataclass(frozen=True, slots=True)
class WordLabel:
    """What a search found for a latent. ``words``: best on the texts searched with first, at most five; the first is the
    label, if it tells texts that were held out better than chance does.

    ``control_auc`` is the AUC on held-out texts of the word that the same search, restarted once, finds when the
    labels of all texts are shuffled: about .5 but for chance. ``chance_sd`` is the standard deviation of an AUC without
    any relation at this number of held-out texts (Mann-Whitney, no ties); ``n_words`` how many words were searched among.
    """

    latent: int
    words: tuple[FoundWord, ...]
    n_searched: int
    n_positive: int
    n_negative: int
    control_word: str
    control_auc: float
    n_words: int
    judge: JudgeCheck

    @property
    def label(self) -> str | None:
        """The best word; None where its AUC is within two standard deviations of chance."""
        return self.words[0].word if self.auc > 0.5 + _BEYOND_CHANCE * self.chance_sd else None

    @property
    def auc(self) -> float:
        """Of the best word, on held-out texts."""
        return self.words[0].auc

    @property
    def chance_sd(self) -> float:
        both = self.n_positive * self.n_negative
        return float(np.sqrt((self.n_positive + self.n_negative + 1) / (12 * both)))


def search_label(
    model: LoadedModel,
    sae: LoadedSAE,
    store: Store,
    latent: int,
    rules: DescentRules | None = None,
    progress: Progress | None = None,
) -> WordLabel:
    """Search a word for a latent of an SAE whose index is stored, and store what was found in place of an earlier one.

    Raises:
        BadRequest: there is no such latent or no index, the latent fires on too few or nearly all texts, or the tokenizer
            does not allow it.
        JudgeRefused: the model fails the check on known topics.
        Cancelled: ``progress`` said so; nothing is stored of the search.
    """
    rules, progress = rules or DescentRules(), progress or Progress()
    if sae.info.unreadable is not None:
        raise SAEMismatch(sae.info.unreadable)
    if not 0 <= latent < sae.info.d_sae:
        raise BadRequest(f"{sae.info.name} has no latent {latent}; it has 0 to {sae.info.d_sae - 1}.")
    index = _index_id(store, sae, model)
    progress.step(0.0, "preparing the judge")
    judge = Judge(model)
    check = check_judge(judge, store, progress.part(0.0, 0.15))
    examples = label_examples(store, index, latent, model, sae, rules.seed, progress.part(0.15, 0.22))
    sequences = store.sae_table(index, "sae_sequences")["token_ids"]
    words = whole_words(model, sequences)
    texts = judge.read(examples.texts, progress.part(0.22, 0.3))
    search = _Search(judge, texts, words, examples.held_out, rules)
    share = 0.3 + 0.65 * rules.restarts / (rules.restarts + 1)
    endings = search.run(examples.fires, rules.restarts, progress.part(0.3, share), "searching a word")[:_KEPT]
    shuffled = _shuffled(examples, rules.seed)
    control = search.run(shuffled, 1, progress.part(share, 0.95), "the same with shuffled labels")[0]
    progress.step(0.95, "judging the texts held out")
    spelt = [one.strip() for one in pieces(model.tokenizer, [words[ending.word] for ending in (*endings, control)])]
    found = WordLabel(
        latent=latent,
        words=tuple(
            FoundWord(word, ending.probability, ending.cross_entropy, search.held_out_auc(ending, examples.fires))
            for word, ending in zip(spelt, endings, strict=False)
        ),
        n_searched=int((~examples.held_out).sum()),
        n_positive=int((examples.fires & examples.held_out).sum()),
        n_negative=int((~examples.fires & examples.held_out).sum()),
        control_word=spelt[-1],
        control_auc=search.held_out_auc(control, shuffled),
        n_words=len(words),
        judge=check,
    )
    content = content_digest(sae.info.folder)
    store.put_answer(_KIND, content, str(latent), model.facts.fingerprint, asdict(found))
    return found


def stored_label(store: Store, content: str, latent: int, fingerprint: str) -> WordLabel | None:
    """What an earlier search found for a latent with this model as the judge."""
    known: dict[str, Any] | None = store.answer(_KIND, content, str(latent), fingerprint)
    if known is None:
        return None
    words = tuple(FoundWord(**word) for word in known["words"])
    return WordLabel(**{**known, "words": words, "judge": JudgeCheck(**known["judge"])})


class _Search:
    """Searches over one set of texts with one judge; the prior is of the texts searched with alone."""

    def __init__(
        self,
        judge: Judge,
        texts: Texts,
        words: Sequence[int],
        held_out: Bool[np.ndarray, " texts"],
        rules: DescentRules,
    ) -> None:
        self._judge, self._texts, self._rules = judge, texts, rules
        self._embedded = judge.embed(words).float().cpu()
        self._searched = torch.from_numpy(np.flatnonzero(~held_out))
        self._held_out = torch.from_numpy(np.flatnonzero(held_out))
        self._log_prior = texts.log_prior(words, self._searched)

    def run(
        self, fires: Bool[np.ndarray, " texts"], restarts: int, progress: Progress, what: str
    ) -> tuple[Ending, ...]:
        def watch(fraction: float) -> None:
            progress.step(fraction, f"{what}, attempt {int(fraction * restarts) + 1} of {restarts}")

        rules = replace(self._rules, restarts=restarts)
        return descend(self._judges, torch.from_numpy(fires)[self._searched], self._log_prior, rules, watch)

    def held_out_auc(self, ending: Ending, fires: Bool[np.ndarray, " texts"]) -> float:
        """How well the word alone tells the texts that were held out."""
        with torch.no_grad():
            odds = self._judge.log_odds(self._texts, self._held_out, self._embedded[ending.word])
        return float(auc(odds.double().numpy(), fires[self._held_out.numpy()]))

    def _judges(self, p: Float[Tensor, " words"], rows: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self._judge.log_odds(self._texts, self._searched[rows], p @ self._embedded)


def _shuffled(examples: LabelExamples, seed: int) -> Bool[np.ndarray, " texts"]:
    """Labels shuffled among the texts searched with, and among those held out."""
    draw, labels = np.random.default_rng(seed), examples.fires.copy()
    for part in (examples.held_out, ~examples.held_out):
        labels[part] = draw.permutation(labels[part])
    return labels


def _index_id(store: Store, sae: LoadedSAE, model: LoadedModel) -> str:
    """The index of this SAE that the latent page shows for this model."""
    content = content_digest(sae.info.folder)
    row = store.sae_index(content, model.facts.fingerprint)
    row = store.sae_index(content) if row is None else row
    if row is None or base_name(str(row["model"])) != base_name(model.facts.name):
        raise BadRequest(
            f"There is no index of {sae.info.name}, which says where its latents fire: make one with sae index {sae.info.name}."
        )
    return str(row["index_id"])
