"""A language model as a judge of texts: whether a word is the topic of a text, by its log-odds of yes against no.

The text comes first and the word last, so each text is passed once and kept as keys and values; a question then costs two
tokens. Four answered examples stand before the text: without them a small model's answers follow the text hardly at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor
from transformers import DynamicCache

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Progress

__all__ = ["DEMONSTRATIONS", "REFERENCE", "Judge", "Texts", "whole_words"]

DEMONSTRATIONS = (
    ("The train left the station late and missed its connection.", "cooking", "No", "trains", "Yes"),
    ("The lawyer asked the witness to repeat what she had told the court.", "law", "Yes", "gardens", "No"),
    ("Plant the bulbs in autumn and water them once a week.", "computers", "No", "gardens", "Yes"),
    ("The new laptop has a faster processor and more memory.", "computers", "Yes", "ships", "No"),
)
"""Text, word, answer, word, answer; no word of them is a known label."""

REFERENCE = ("history", "travel", "clothing", "politics", "education", "technology")
"""Words whose mean log-odds on a text is subtracted: some texts draw a yes to anything (contextual calibration)."""

_TEXT, _ASK, _END = "Text:", "\nTopic:", "?"
_ANSWERS = {"yes": (" Yes", " yes"), "no": (" No", " no")}
_LEAST_WORDS, _LEAST_LETTERS = 32, 3
_WORD_STARTS = "Ġ▁"
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts as the judge has read them, up to where the word goes. ``states`` holds keys and values of each text, without
    what stands before all of them; ``reference`` the mean log-odds of the reference words; ``next_logits`` what the model
    expects in the word's place."""

    states: tuple[Float[Tensor, "2 layers kv_heads _ d_head"], ...]
    reference: Float32[Tensor, " texts"]
    next_logits: Float32[Tensor, "texts d_vocab"]

    def log_prior(self, words: Sequence[int], rows: Int64[Tensor, " n"]) -> Float32[Tensor, " words"]:
        """The model's mean probability of each word in its place over some texts, among these words alone; logarithms."""
        logits = self.next_logits[rows][:, list(words)]
        return logits.softmax(dim=1).mean(dim=0).clamp_min(1e-12).log()


class Judge:
    """Asks a model. Raises BadRequest where its tokenizer has no tokens of their own for yes and no, or too few of the
    reference words."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._yes, self._no = (self._single(forms) for forms in _ANSWERS.values())
        self._reference = self._single([f" {word}" for word in REFERENCE])
        if not self._yes or not self._no or len(self._reference) < len(REFERENCE) // 2:
            raise BadRequest(
                f"{model.facts.name} cannot be asked for labels: its tokenizer has no single tokens for yes, no and the "
                f"words answers are compared with."
            )
        self._end = self.embed(self._ids(_END))
        bos = [] if model.facts.bos_id is None else [model.facts.bos_id]
        self._head = self._pass([*bos, *self._ids(_head())], None)[0]

    def embed(self, token_ids: Sequence[int]) -> Float[Tensor, "n d_model"]:
        """What the model reads for each token."""
        ids = torch.tensor(list(token_ids), device=self.model.device)
        embedded: Tensor = self.model.hf.get_input_embeddings()(ids)
        return embedded.detach()

    def known(self, word: str) -> int | None:
        """The token that is this word behind a space; None if it takes several."""
        single = self._single([f" {word}"])
        return single[0] if single else None

    def text_ids(self, text: str) -> tuple[int, ...]:
        """A text as the judge reads it."""
        return tuple(self._ids(f" {text}"))

    @torch.no_grad()
    def read(self, texts: Sequence[Sequence[int]], progress: Progress | None = None) -> Texts:
        """Pass each text, token ids without specials. Raises what ``progress`` raises to stop."""
        progress = progress or Progress()
        ask, text = self._ids(_ASK), self._ids(_TEXT)
        states, logits = [], []
        for number, ids in enumerate(texts):
            progress.step(0.4 * number / len(texts), f"reading text {number + 1} of {len(texts)}")
            state, last = self._pass([*text, *ids, *ask], self._head)
            states.append(state)
            logits.append(last)
        asked = Texts(tuple(states), torch.zeros(len(states)), torch.stack(logits))
        odds = []
        for number, word in enumerate(self.embed(self._reference)):
            progress.step(0.4 + 0.6 * number / len(self._reference), "asking about words to compare with")
            odds.append(self.log_odds(asked, torch.arange(len(states)), word))
        return Texts(asked.states, torch.stack(odds).mean(dim=0).float(), asked.next_logits)

    def log_odds(self, texts: Texts, rows: Int64[Tensor, " n"], slot: Float[Tensor, " d_model"]) -> Float[Tensor, " n"]:
        """Log-odds of yes against no with ``slot`` in the word's place, less those of the reference words, for the texts of
        these numbers; differentiable in ``slot``."""
        lengths = [texts.states[row].shape[-2] for row in rows.tolist()]
        parts, places = [], []
        for length in sorted(set(lengths)):
            at = [place for place, other in enumerate(lengths) if other == length]
            for first in range(0, len(at), _BATCH):
                some = at[first : first + _BATCH]
                parts.append(self._ask([texts.states[int(rows[place])] for place in some], slot))
                places += some
        odds = torch.cat(parts)[torch.tensor(places).argsort()]
        return odds - texts.reference[rows].to(odds.dtype)

    def _ask(self, states: Sequence[Tensor], slot: Tensor) -> Float[Tensor, " n"]:
        cache, n = DynamicCache(), len(states)
        for layer in range(self._head.shape[1]):
            shared = self._head[:, layer].unsqueeze(1).expand(-1, n, -1, -1, -1)
            keys, values = torch.cat([shared, torch.stack([one[:, layer] for one in states], dim=1)], dim=3)
            cache.update(keys, values, layer)
        given = torch.cat([slot[None].to(self._end.device, self._end.dtype), self._end]).expand(n, -1, -1)
        with self.model.lock:
            out = self.model.sites.backbone(inputs_embeds=given, past_key_values=cache, use_cache=True)
        logits = self._logits(out.last_hidden_state[:, -1], [*self._yes, *self._no]).double()
        count = len(self._yes)
        odds: Tensor = logits[:, :count].logsumexp(dim=1) - logits[:, count:].logsumexp(dim=1)
        return odds.to("cpu", slot.dtype)

    def _pass(self, ids: Sequence[int], head: Tensor | None) -> tuple[Tensor, Float32[Tensor, " d_vocab"]]:
        """Keys and values of these tokens behind ``head``, and the logits of what comes next."""
        cache = DynamicCache()
        skipped = 0 if head is None else head.shape[-2]
        if head is not None:
            for layer in range(head.shape[1]):
                cache.update(head[0, layer][None], head[1, layer][None], layer)
        given = torch.tensor([list(ids)], device=self.model.device)
        with torch.no_grad(), self.model.lock:
            out = self.model.sites.backbone(input_ids=given, past_key_values=cache, use_cache=True)
            last = self._logits(out.last_hidden_state[:, -1], None)[0].float().cpu()
        kept = [torch.stack([layer.keys[0, :, skipped:], layer.values[0, :, skipped:]]) for layer in cache.layers]
        return torch.stack(kept, dim=1), last

    def _logits(self, hidden: Float[Tensor, "n d_model"], tokens: Sequence[int] | None) -> Float[Tensor, "n tokens"]:
        """Logits of normed states, of some tokens or of all."""
        model = self.model
        weight, bias = model.unembed_matrix(), model.unembed_bias
        if tokens is not None:
            weight, bias = weight[list(tokens)], None if bias is None else bias[list(tokens)]
        logits = torch.nn.functional.linear(hidden, weight, bias)
        cap = model.facts.softcap
        return logits if cap is None else cap * (logits / cap).tanh()

    def _ids(self, text: str) -> list[int]:
        ids: Any = self.model.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [int(one) for one in ids]

    def _single(self, forms: Sequence[str]) -> list[int]:
        """The forms that are one known token each."""
        unknown = self.model.tokenizer.unk_token_id
        split = (self._ids(form) for form in forms)
        return [ids[0] for ids in split if len(ids) == 1 and ids[0] != unknown]


def whole_words(model: LoadedModel, sequences: Iterable[Int[np.ndarray, " _"]], most: int = 5_000) -> tuple[int, ...]:
    """The first ``most`` tokens of the vocabulary that are whole words of ``sequences``: three letters a-z or more behind a
    space, in more than half of the places they have there not continued by letters; of those that differ by case alone
    the first. In a BPE vocabulary the frequent ones come first.

    Raises BadRequest where there are fewer than 32.
    """
    names = model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer))))
    letters = torch.tensor([bool(name) and name[0].isascii() and name[0].isalpha() for name in names])
    seen, split = torch.zeros(2, len(names), dtype=torch.long)
    for ids in sequences:
        row = torch.tensor(ids, dtype=torch.long)
        seen += torch.bincount(row[:-1], minlength=len(names))
        split += torch.bincount(row[:-1][letters[row[1:]]], minlength=len(names))
    found: dict[str, int] = {}
    for token, name in enumerate(names):
        text = name[1:] if name and name[0] in _WORD_STARTS else ""
        if len(text) >= _LEAST_LETTERS and text.isascii() and text.isalpha() and 2 * split[token] < seen[token]:
            found.setdefault(text.casefold(), token)
            if len(found) == most:
                break
    if len(found) < _LEAST_WORDS:
        raise BadRequest(
            f"{model.facts.name} cannot be asked for labels: the index holds {len(found)} words that are one token; "
            f"a search needs at least {_LEAST_WORDS}."
        )
    return tuple(found.values())


def _head() -> str:
    lines = [
        f"{_TEXT} {text}{_ASK} {one}{_END} {first}{_ASK} {other}{_END} {second}\n\n"
        for text, one, first, other, second in DEMONSTRATIONS
    ]
    return "".join(lines)
