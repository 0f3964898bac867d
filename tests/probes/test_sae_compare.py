"""Two SAEs on one text, and absorption in a model whose words were given letters: numbers from elsewhere must agree."""

import string
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from probes.errors import BadRequest, PlanRefused
from probes.model.load import from_memory
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.compare import compare_saes
from probes.saes.config import WEIGHTS
from probes.saes.folder import read_info
from probes.saes.loading import load_sae
from probes.saes.sequences import TextSequence, cut_documents
from probes.saes.spelling import SpellingRequest, measure_absorption
from tests import tiny
from tests.tiny_saes import edit_config, edit_weights, make

PER_LETTER, SUBSET = 60, 9


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


class Text:
    source, name, text, conversations = "file", "own.txt", tiny.TEXT * 8, ()


@pytest.fixture
def sequences(model: LoadedModel) -> tuple[TextSequence, ...]:
    return cut_documents([Text()], model, n_tokens=10_000, context=64)


def test_an_sae_compared_with_itself(model: LoadedModel, sequences: tuple[TextSequence, ...], tmp_path: Path) -> None:
    one = load_sae(read_info(make(tmp_path / "one", "standard")), model.facts)
    two = load_sae(read_info(make(tmp_path / "two", "standard")), model.facts)
    found = compare_saes(model, one, two, sequences, Progress())
    fires = found.matches.best >= 0
    assert int(fires.sum()) > 30
    assert torch.equal(found.matches.best[fires], torch.arange(64)[fires])
    assert (found.matches.r[fires] - 1).abs().max() < 1e-4
    assert found.n_tokens == sum(len(one.ids) - 1 for one in sequences)
    own = found.children[found.children["latent"] == found.children["child"]]
    assert set(own["latent"]) == set(torch.nonzero(fires)[:, 0].tolist())
    assert found.geometry.svcca.status == "not_applicable"  # fewer pairs than five times 32 directions


def test_doubled_latents_are_found_as_children(
    model: LoadedModel, sequences: tuple[TextSequence, ...], tmp_path: Path
) -> None:
    narrow = make(tmp_path / "narrow", "standard")
    w = load_file(narrow / WEIGHTS)
    twice = make(tmp_path / "wide", "standard", d_sae=128)
    edit_weights(
        twice,
        W_enc=torch.cat([w["W_enc"], 2 * w["W_enc"]], dim=1),
        b_enc=torch.cat([w["b_enc"], 2 * w["b_enc"]]),
        W_dec=torch.cat([w["W_dec"], w["W_dec"] / 2]),
        b_dec=w["b_dec"],
    )
    a, b = (load_sae(read_info(folder), model.facts) for folder in (twice, narrow))
    found = compare_saes(model, a, b, sequences, Progress())
    assert (found.narrow, found.wide) == ("narrow", "wide")
    strict = found.children[(found.children["cosine"] > 0.999) & (found.children["correlation"] > 0.999)]
    by_latent = strict.groupby("latent")["child"].apply(set)
    assert len(by_latent) > 30
    assert all(child == {latent, latent + 64} for latent, child in by_latent.items())


def test_pairs_that_do_not_fit_in_memory_are_refused_before_the_text_is_read(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    one = load_sae(read_info(make(tmp_path / "one")), model.facts)
    with pytest.raises(PlanRefused, match="Comparing 64 with 64 latents needs"):
        compare_saes(model, one, one, (), Progress())


def spelling_model(told: bool) -> LoadedModel:
    """A tiny model with 180 words of three letters; where ``told``, a word's embedding holds its letter, and that of the
    first nine words of A a mark."""
    draw = np.random.default_rng(0)
    rest = [first + second for first in string.ascii_lowercase for second in string.ascii_lowercase]
    words = [f" {letter}{ending}" for letter in "abc" for ending in draw.permutation(rest)[:PER_LETTER]]
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([*words, *(f" {letter}" for letter in string.ascii_uppercase)])
    hf = tiny.module("llama", vocab_size=len(tokenizer))
    if told:
        generator = torch.Generator().manual_seed(0)
        embedding = hf.get_input_embeddings().weight.data
        for place, word in enumerate(words):
            row = 0.05 * torch.randn(32, generator=generator)
            row["abc".index(word[1])] += 3
            row[5] += 3.0 * (place < SUBSET)
            embedding[tokenizer.convert_tokens_to_ids(word)] = row
    return from_memory(hf, tokenizer, "tiny-spelling", None, Progress())


def test_a_model_whose_states_hold_no_letter_is_refused_with_the_f1(tmp_path: Path) -> None:
    model = spelling_model(told=False)
    sae = load_sae(read_info(make(tmp_path / "sae", hook="blocks.0.hook_resid_pre")), model.facts)
    found = measure_absorption(model, sae, SpellingRequest(), Progress())
    assert found.f1.value < 0.8
    assert found.rate.status == "not_applicable"
    assert len(found.words) == len(found.letters) == 0
    assert f"with an F1 of {found.f1.value:.2f}, below 0.8" in found.says
    assert found.told.n_used == 3 * PER_LETTER


def test_silenced_words_are_found_and_their_latents_ablated_one_by_one(tmp_path: Path) -> None:
    """Latent l reads letter l; latent 0 is silent where the mark (dimension 5) is, latent 3 reads the mark and writes
    the letter too. At point 0 the state is the embedding, so the ablation can be done again on embeddings."""
    model = spelling_model(told=True)
    folder = edit_config(make(tmp_path / "sae", "standard", hook="blocks.0.hook_resid_pre"), apply_b_dec_to_input=False)
    w_enc, w_dec = torch.zeros(32, 64), torch.zeros(64, 32)
    for letter in range(3):
        w_enc[letter, letter], w_dec[letter, letter] = 1, 1
    w_enc[5, 0], w_enc[5, 3] = -5, 1
    w_dec[3, 5], w_dec[3, 0] = 1, 1
    b_enc = torch.full((64,), -1.0)
    edit_weights(folder, W_enc=w_enc, W_dec=w_dec, b_enc=b_enc, b_dec=torch.zeros(32))
    sae = load_sae(read_info(folder), model.facts)
    found = measure_absorption(model, sae, SpellingRequest(examined=50), Progress())
    letters = found.letters.set_index("letter")
    assert found.f1.value > 0.95
    assert letters["main"].to_dict() == {"A": [0, 3], "B": [1], "C": [2]} or letters.loc["A", "main"] == [0]
    if letters.loc["A", "main"] == [0]:
        assert letters.loc["A", "n_silent"] == SUBSET
    assert letters.loc[["B", "C"], "n_silent"].tolist() == [0, 0]
    for _, row in found.words.iterrows():
        assert row["latent"] == 3
        assert row["effect"] == pytest.approx(embedding_effect(model, row["word"], w_dec[3]), abs=1e-3)


def embedding_effect(model: LoadedModel, word: str, direction: torch.Tensor) -> float:
    """The change of the letter's logit, less the mean of the others, with latent 3 taken off the word's embedding."""
    from probes.saes.spelling import _prompts

    prompts = _prompts(model, SpellingRequest(examined=50))
    ids = prompts.ids[prompts.words.index(word)]
    embeddings = model.hf.get_input_embeddings()(ids)[None]
    without = embeddings.clone()
    without[0, prompts.place] -= (embeddings[0, prompts.place, 5] - 1) * direction
    scores = []
    for given in (embeddings, without):
        with torch.no_grad():
            answers = model.hf(inputs_embeds=given).logits[0, -1, prompts.answers].double()
        own = "ABC".index(word[0].upper())
        scores.append(answers[own] - (answers.sum() - answers[own]) / 25)
    return float(scores[1] - scores[0])


def test_a_tokenizer_without_words_cannot_be_asked(model: LoadedModel, tmp_path: Path) -> None:
    sae = load_sae(read_info(make(tmp_path / "sae")), model.facts)
    with pytest.raises(BadRequest, match="writes some letters in several tokens"):
        measure_absorption(model, sae, SpellingRequest(), Progress())
    with pytest.raises(BadRequest, match="words must be a whole number from 50 to 200, not 3"):
        SpellingRequest(words=3)
