"""First letters: whether a model tells them, whether a probe reads them from its states, and whether latents of an SAE
that tell a letter are absorbed by latents of single words (docs/methods, Two SAEs)."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from analysis.absorption import MIN_F1, LetterProbe, absorbed_words, absorption_rate, letter_probe, silent
from analysis.measured import Measured, undefined
from analysis.splitting import k_sparse_probe
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.resume import resume
from probes.model.tokenise import pieces
from probes.progress import Progress
from probes.saes.loading import LoadedSAE
from probes.saes.reading import resid_at

__all__ = ["Absorption", "SpellingRequest", "measure_absorption"]

_BATCH = 32
_MIN_WORDS = 50
_MAX_ABLATED = 128
_COLUMNS = ["letter", "word", "main", "latent", "effect", "margin", "cosine", "absorbed"]


@dataclass(frozen=True, slots=True)
class SpellingRequest:
    """How many words a letter are read, how many examples stand before each, and how many words a letter are looked at
    one latent at a time."""

    words: int = 60
    shots: int = 4
    examined: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("words", _MIN_WORDS, 200), ("shots", 1, 20), ("examined", 1, 200)):
            if not least <= getattr(self, name) <= most:
                raise BadRequest(f"{name} must be a whole number from {least} to {most}, not {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Absorption:
    """``told``: share of words whose first letter is the model's answer. ``f1``: of the probes, mean over letters; below
    .8 ``rate`` is ``not_applicable`` and the tables are empty, and ``says`` gives the reason.

    ``letters``: a row a letter; ``words``: a row a word that was looked at, with the latent that carries its letter.
    """

    told: Measured
    f1: Measured
    f1_by_letter: dict[str, float]
    rate: Measured
    letters: pd.DataFrame
    words: pd.DataFrame
    says: str


@dataclass(frozen=True, eq=False)
class _Prompts:
    """One prompt a word, all of one length; ``place`` is the word's position."""

    ids: Int64[Tensor, "words tokens"]
    place: int
    words: tuple[str, ...]
    letters: tuple[str, ...]
    answers: Int64[Tensor, "letters"]

    @property
    def right(self) -> Int64[Tensor, "words"]:
        """The token of the right answer to each."""
        return self.answers[[string.ascii_uppercase.index(letter) for letter in self.letters]]


def measure_absorption(model: LoadedModel, sae: LoadedSAE, request: SpellingRequest, progress: Progress) -> Absorption:
    """Ask the model for first letters, fit a probe a letter at the SAE's point, and look for absorbed words.

    Raises:
        BadRequest: the tokenizer has no 50 words for two letters, or writes a letter in several tokens.
    """
    prompts = _prompts(model, request)
    told, states = _read(model, sae, prompts, progress.part(0.0, 0.6))
    held_out = _every_third(prompts.letters)
    progress.step(0.6, "fitting a probe for every letter")
    probe = letter_probe(states, prompts.letters, held_out)
    f1 = Measured(probe.mean_f1, int(held_out.sum()))
    empty = pd.DataFrame(columns=_COLUMNS)
    heard = f"The model tells the first letter of {told.value:.0%} of {told.n_used} words"
    if probe.mean_f1 < MIN_F1:
        says = (
            f"{heard}, and probes read it from point {sae.info.point} with an F1 of {probe.mean_f1:.2f}, below {MIN_F1}: "
            "absorption cannot be told from a letter that is not there."
        )
        no = undefined("not_applicable", f1.n_used)
        return Absorption(told, f1, dict(probe.f1), no, pd.DataFrame(), empty, says)
    letters, words = _by_letter(model, sae, prompts, states, probe, held_out, request, progress.part(0.65, 1.0))
    right = int(letters["n_right"].sum())
    share = float((letters["rate"] * letters["n_right"]).sum()) / right if right else None
    rate = undefined("not_applicable") if share is None else Measured(share, right)
    says = f"{heard}; probes read it with an F1 of {probe.mean_f1:.2f}; {rate.value:.1%} of {right} words are absorbed."
    return Absorption(told, f1, dict(probe.f1), rate, letters, words, says)


def _prompts(model: LoadedModel, request: SpellingRequest) -> _Prompts:
    """Words of one token each after the same examples: ``" word: W"`` a line, the last without its letter."""
    tokenizer = model.tokenizer
    answers = [_tokens(tokenizer, f" {letter}") for letter in string.ascii_uppercase]
    if any(len(answer) != 1 for answer in answers):
        raise BadRequest(f"{model.facts.name} writes some letters in several tokens; its spelling cannot be asked for.")
    colon, line = _tokens(tokenizer, ":"), _tokens(tokenizer, "\n")
    draw = random.Random(request.seed)
    by_letter: dict[str, list[int]] = {}
    ids = range(model.facts.d_vocab)
    for token, text in zip(ids, pieces(tokenizer, ids), strict=True):
        word = text[1:]
        if text[:1] == " " and len(word) >= 3 and word.isascii() and word.isalpha() and word.islower():
            by_letter.setdefault(word[0].upper(), []).append(token)
    enough = {letter: sorted(found) for letter, found in sorted(by_letter.items()) if len(found) >= _MIN_WORDS}
    if len(enough) < 2:
        raise BadRequest(
            f"The vocabulary of {model.facts.name} has {_MIN_WORDS} words of one token for {len(enough)} letters; "
            "absorption needs at least two letters."
        )
    drawn = {letter: draw.sample(found, min(len(found), request.words)) for letter, found in enough.items()}
    shots = draw.choices(sorted(drawn), k=request.shots)
    start = [] if model.facts.bos_id is None else [model.facts.bos_id]
    for letter in shots:
        spare = [token for token in enough[letter] if token not in drawn[letter]] or drawn[letter]
        start += [draw.choice(spare), *colon, *answers[string.ascii_uppercase.index(letter)], *line]
    tokens = [(letter, token) for letter, found in drawn.items() for token in found]
    rows = [[*start, token, *colon] for _, token in tokens]
    words = pieces(tokenizer, [token for _, token in tokens])
    return _Prompts(
        torch.tensor(rows),
        len(start),
        tuple(word.strip() for word in words),
        tuple(letter for letter, _ in tokens),
        torch.tensor([answer[0] for answer in answers]),
    )


def _read(
    model: LoadedModel, sae: LoadedSAE, prompts: _Prompts, progress: Progress
) -> tuple[Measured, Float32[Tensor, "words d_model"]]:
    """How often the model's answer is right, and the state of every word at the SAE's point."""
    states: list[Tensor] = []
    right: list[Tensor] = []
    parts = zip(torch.split(prompts.ids, _BATCH), torch.split(prompts.right, _BATCH), strict=True)
    for ids, answers in parts:
        progress.step(len(states) * _BATCH / len(prompts.ids), f"asking for {len(prompts.ids)} first letters")
        states.append(resid_at(model, ids, sae.info.point)[:, prompts.place])
        last = resid_at(model, ids, model.facts.n_layers)[:, -1]
        right.append(model.unembed(last).argmax(dim=1).cpu() == answers)
    return Measured(float(torch.cat(right).double().mean()), len(prompts.ids)), torch.cat(states)


def _by_letter(
    model: LoadedModel,
    sae: LoadedSAE,
    prompts: _Prompts,
    states: Float32[Tensor, "words d_model"],
    probe: LetterProbe,
    held_out: Bool[Tensor, "words"],
    request: SpellingRequest,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    activations = sae.encode(states)
    letters, tables = [], []
    draw = torch.Generator().manual_seed(request.seed)
    for index, letter in enumerate(probe.letters):
        progress.step(index / len(probe.letters), f"looking at words of {letter}, one latent at a time")
        own = torch.tensor([one == letter for one in prompts.letters])
        sparse = k_sparse_probe(activations, own, held_out)
        right = own & probe.said[:, index]
        candidates = torch.nonzero(right & silent(activations, sparse.main))[:, 0]
        rows = candidates[torch.randperm(len(candidates), generator=draw)[: request.examined]]
        effects = [_ablated(model, sae, prompts, int(row)) for row in rows]
        table = absorbed_words(
            torch.stack(effects) if effects else torch.zeros(0, sae.info.d_sae), probe.directions[index], sae.decoder
        )
        rate = absorption_rate(int(table["absorbed"].sum()), len(rows), len(candidates), int(right.sum()))
        letters.append(
            {
                "letter": letter,
                "probe_f1": probe.f1[letter],
                "main": list(sparse.main),
                "main_f1": max(sparse.f1, default=float("nan")),
                "n_words": int(own.sum()),
                "n_right": int(right.sum()),
                "n_silent": len(candidates),
                "n_examined": len(rows),
                "n_absorbed": int(table["absorbed"].sum()),
                "rate": rate.value,
            }
        )
        words = [prompts.words[int(rows[row])] for row in table["row"]]
        tables.append(table.assign(letter=letter, word=words, main=[list(sparse.main)] * len(table)))
    return pd.DataFrame(letters), pd.concat(tables, ignore_index=True)[_COLUMNS]


def _ablated(model: LoadedModel, sae: LoadedSAE, prompts: _Prompts, row: int) -> Float32[Tensor, "latents"]:
    """By how much the logit of the right letter, less the mean of the others, changes when each active latent of the word
    is taken out of its state; 0 for latents that are silent and beyond the 128 that write most."""
    point = sae.info.point
    resid = resid_at(model, prompts.ids[row][None], point)
    state = resid[:, prompts.place]
    f = sae.encode(state)[0]
    lengths = f * sae.decoder.norm(dim=1)
    active = lengths.topk(min(_MAX_ABLATED, int((f > 0).sum()))).indices
    written = torch.cat([f[i] * sae.written(int(i), state) for i in active]) if len(active) else resid[0, :0]
    versions = resid.repeat(1 + len(active), 1, 1)
    versions[1:, prompts.place] -= written
    last = torch.cat([resume(model, prompts.ids[row], point, part)[:, -1] for part in torch.split(versions, _BATCH)])
    answers = model.unembed(last)[:, prompts.answers].double().cpu()
    own = string.ascii_uppercase.index(prompts.letters[row])
    others = (answers.sum(dim=1) - answers[:, own]) / (answers.shape[1] - 1)
    score = answers[:, own] - others
    effects = torch.zeros(sae.info.d_sae)
    effects[active] = (score[1:] - score[0]).float()
    return effects


def _every_third(letters: Sequence[str]) -> Bool[Tensor, "words"]:
    """Every third word of each letter: they were drawn in random order."""
    seen: dict[str, int] = {}
    held = []
    for letter in letters:
        seen[letter] = seen.get(letter, -1) + 1
        held.append(seen[letter] % 3 == 2)
    return torch.tensor(held)


def _tokens(tokenizer: object, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    return found
