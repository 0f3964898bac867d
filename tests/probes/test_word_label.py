"""A word for a latent: searched over a real index of a tiny SAE with a planted latent, by a judge that sees words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from analysis.token_descent import DescentRules
from cache import Store
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes import word_label
from probes.saes.folder import content_digest, installed_saes, read_info
from probes.saes.index import SAEIndex, index_sae, store_index
from probes.saes.judge import Judge, Texts
from probes.saes.judge_check import JudgeCheck, JudgeRefused
from probes.saes.label_examples import label_examples
from probes.saes.loading import LoadedSAE, load_sae
from probes.saes.sequences import TextSequence
from probes.saes.shipped_index import import_shipped_index
from probes.saes.word_label import WordLabel, search_label, stored_label
from tests import tiny_saes, tiny_words

RIVER, SILENT, ALWAYS = 0, 1, 2
RULES = DescentRules(steps=60, rate=0.3, restarts=2)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny_words.loaded()


@pytest.fixture(scope="module")
def sae(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedSAE:
    """Latent 0 reads the embedding of "river" at point 0, latent 1 nothing, latent 2 every token."""
    folder = tiny_saes.make(tmp_path_factory.mktemp("saes") / "planted", "standard", hook="blocks.0.hook_resid_pre")
    river = model.hf.get_input_embeddings().weight[model.tokenizer.convert_tokens_to_ids("▁river")].detach()
    encoder, bias = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), torch.full((64,), -0.1)
    encoder[:, RIVER], encoder[:, SILENT], encoder[:, ALWAYS] = river / river.norm(), 0.0, 0.0
    bias[RIVER], bias[SILENT], bias[ALWAYS] = -0.95 * float(river.norm()), -1.0, 1.0
    tiny_saes.edit_weights(folder, W_enc=encoder, b_enc=bias, b_dec=torch.zeros(32))
    return load_sae(read_info(folder), model.facts)


@pytest.fixture(scope="module")
def sequences(model: LoadedModel) -> tuple[TextSequence, ...]:
    """120 texts of random words; the first 40 hold "river"."""
    draw = np.random.default_rng(0)
    tokenizer = model.tokenizer
    river = tokenizer.convert_tokens_to_ids("▁river")
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words = [token for token, name in enumerate(names) if name.startswith("▁") and token != river]
    made = []
    for number in range(120):
        ids = draw.choice(words, 40).tolist()
        if number < 40:
            ids[10 + number % 20] = river
        made.append(TextSequence("own", f"text {number}", (1, *ids)))
    return tuple(made)


@pytest.fixture(scope="module")
def made(model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...]) -> SAEIndex:
    return index_sae(model, sae, sequences, "own texts")


@pytest.fixture
def store(made: SAEIndex) -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        store_index(opened, made)
        yield opened


class SeesWords(Judge):
    """Says yes to a word as far as it stands in the text; what it reads for a word is the word itself."""

    def embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(list(token_ids)), self.model.facts.d_vocab).float()

    def read(self, texts: Sequence[Sequence[int]], progress: Progress | None = None) -> Texts:
        self._seen = torch.stack([self.embed(ids).amax(dim=0) for ids in texts])
        return Texts((), torch.zeros(len(texts)), torch.zeros(len(texts), self.model.facts.d_vocab))

    def log_odds(self, texts: Texts, rows: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        return 8.0 * (self._seen[rows] @ slot) - 4.0


def passed(*_: Any) -> JudgeCheck:
    return JudgeCheck("a good judge", {"animals": 0.9, "food": 1.0}, 20)


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_label, "Judge", SeesWords)
    monkeypatch.setattr(word_label, "check_judge", passed)


def test_examples_are_what_the_latent_does(
    store: Store, model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...]
) -> None:
    [index] = store.sae_indexes()["index_id"]
    found = label_examples(store, index, RIVER, model, sae)
    river = model.tokenizer.convert_tokens_to_ids("▁river")
    assert [river in text for text in found.texts] == found.fires.tolist()
    assert {len(text) for text in found.texts} == {32}
    assert all(1 not in text for text in found.texts)
    wholes = [one.ids for one in sequences]
    origins = [next(n for n, ids in enumerate(wholes) if set(text) <= set(ids)) for text in found.texts]
    assert len(set(origins)) == len(origins), "no two are of one text, so none that is held out is searched with"
    count = {
        (fires, held): int(((found.fires == fires) & (found.held_out == held)).sum())
        for fires in (True, False)
        for held in (True, False)
    }
    n_own = int(store.sae_table(index, "sae_hits", RIVER)["seq"].nunique())
    assert count[True, False] == count[False, False] == 2 * n_own // 3
    assert count[True, True] == n_own - 2 * n_own // 3
    assert count[False, True] == 32
    again = label_examples(store, index, RIVER, model, sae)
    assert again.texts == found.texts
    assert label_examples(store, index, RIVER, model, sae, seed=1).texts != found.texts


@pytest.mark.usefixtures("seeing")
def test_the_planted_word_is_found_and_stored(store: Store, model: LoadedModel, sae: LoadedSAE) -> None:
    told: list[float] = []
    found = search_label(model, sae, store, RIVER, RULES, Progress(lambda fraction, _: told.append(fraction)))
    assert found.label == "river"
    assert found.auc == 1.0
    assert (found.n_searched, found.n_positive, found.n_negative) == (26, 7, 32)
    assert found.control_word != "river"
    assert abs(found.control_auc - 0.5) < 4 * found.chance_sd
    assert found.judge == passed()
    assert found.judge.auc == pytest.approx(0.95)
    assert told == sorted(told)
    content = content_digest(sae.info.folder)
    assert stored_label(store, content, RIVER, model.facts.fingerprint) == found
    assert stored_label(store, content, ALWAYS, model.facts.fingerprint) is None
    assert search_label(model, sae, store, RIVER, RULES) == found


def test_chance_is_that_of_the_rank_sum() -> None:
    one = WordLabel(0, (), 0, 9, 32, "", 0.5, 1, passed())
    draw = np.random.default_rng(0)
    scores = draw.random((4000, 41))
    aucs = [(np.argsort(np.argsort(row))[:9].sum() - 36) / (9 * 32) for row in scores]
    assert one.chance_sd == pytest.approx(np.std(aucs), rel=0.05)


def test_a_random_judge_is_refused_and_nothing_is_searched(store: Store, model: LoadedModel, sae: LoadedSAE) -> None:
    with pytest.raises(
        JudgeRefused, match=r"Words cannot be tested here: the judge, tiny-words-llama, .* AUC of 0\.\d\d"
    ):
        search_label(model, sae, store, RIVER, RULES)
    assert stored_label(store, content_digest(sae.info.folder), RIVER, model.facts.fingerprint) is None


@pytest.mark.usefixtures("seeing")
def test_a_search_can_be_cancelled_and_leaves_nothing(store: Store, model: LoadedModel, sae: LoadedSAE) -> None:
    seen: list[str] = []
    stop = Progress(lambda _, what: seen.append(what), lambda: sum(one.startswith("searching") for one in seen) > 5)
    with pytest.raises(Cancelled):
        search_label(model, sae, store, RIVER, RULES, stop)
    assert sum(one.startswith("searching a word, attempt 1 of 2") for one in seen) == 6
    assert stored_label(store, content_digest(sae.info.folder), RIVER, model.facts.fingerprint) is None


@pytest.mark.parametrize(
    ("latent", "said"),
    [
        (64, "has no latent 64; it has 0 to 63"),
        (-1, "has no latent -1"),
        (SILENT, "Latent 1 has examples of 0 texts in the index; the search for a word needs 12"),
        (ALWAYS, "Latent 2 fires in nearly every text"),
    ],
)
@pytest.mark.usefixtures("seeing")
def test_what_cannot_be_labelled_is_said(
    store: Store, model: LoadedModel, sae: LoadedSAE, latent: int, said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        search_label(model, sae, store, latent, RULES)


@pytest.mark.usefixtures("seeing")
def test_without_an_index_it_is_said_how_to_make_one(model: LoadedModel, sae: LoadedSAE) -> None:
    with Store.open(":memory:") as empty, pytest.raises(BadRequest, match="make one with sae index planted"):
        search_label(model, sae, empty, RIVER, RULES)


@pytest.mark.usefixtures("seeing")
def test_an_sae_that_cannot_be_read_is_refused(store: Store, model: LoadedModel, sae: LoadedSAE) -> None:
    coder = LoadedSAE(replace(sae.info, d_out=40), sae.notes, sae.module)
    assert coder.info.unreadable is not None
    with pytest.raises(BadRequest, match="not be read"):
        search_label(model, coder, store, RIVER, RULES)


@pytest.mark.model
def test_the_embedded_model_judges_and_names_a_latent_of_the_shipped_sae(embedded: LoadedModel) -> None:
    info = next(one.info for one in installed_saes() if one.info is not None and one.info.shipped)
    sae = load_sae(info, embedded.facts)
    with Store.open(":memory:") as store:
        index = import_shipped_index(store, info.folder)
        assert index is not None
        latents = store.sae_table(index, "sae_latents")
        latent = int(latents.loc[latents["density"].between(1e-3, 1e-2), "latent"].iloc[0])
        found = search_label(embedded, sae, store, latent, DescentRules(steps=3, restarts=1, batch=4))
    assert found.judge.auc > 0.8
    assert min(found.judge.labels.values()) > 0.5
    assert found.n_words > 3000
    assert found.words[0].word.isalpha()
    assert 0.0 <= found.auc <= 1.0
    assert found.n_searched >= 16
