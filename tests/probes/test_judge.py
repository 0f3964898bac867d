"""A model as a judge of texts: what it answers is what a plain pass over the whole prompt says, and its check is honest."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from analysis.token_descent import token_loss
from cache import Store
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes import judge_check
from probes.saes.judge import DEMONSTRATIONS, REFERENCE, Judge, whole_words
from probes.saes.judge_check import JudgeRefused, check_judge, known_texts, stored_check
from tests import tiny, tiny_words

TEXTS = ("the river has the old mill", "the bank had a party", "one cat and two dogs", "rain and wind")
ARCHITECTURES: dict[str, dict[str, Any]] = {"llama": {}, "gpt2": {"n_positions": 1024}, "gemma2": {}, "neox": {}}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny_words.loaded()


@pytest.fixture(scope="module")
def judge(model: LoadedModel) -> Judge:
    return Judge(model)


def plain_odds(model: LoadedModel, text: str, word: str) -> float:
    """Log-odds from the whole prompt in one pass, written out."""
    prompt = ""
    for shown, one, first, other, second in DEMONSTRATIONS:
        prompt += f"Text: {shown}\nTopic: {one}? {first}\nTopic: {other}? {second}\n\n"
    ids = model.tokenizer(f"{prompt}Text: {text}\nTopic: {word}?", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        last = model.hf(torch.tensor([[model.facts.bos_id, *ids]])).logits[0, -1].double().softmax(dim=0)
    yes, no = (
        sum(float(last[model.tokenizer.convert_tokens_to_ids(form)]) for form in forms)
        for forms in (("▁Yes", "▁yes"), ("▁No", "▁no"))
    )
    return float(np.log(yes) - np.log(no))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_the_whole_prompt_less_the_reference(architecture: str) -> None:
    model = tiny_words.loaded(architecture, **ARCHITECTURES[architecture])
    judge = Judge(model)
    texts = judge.read([judge.text_ids(text) for text in TEXTS])
    rows = torch.tensor([3, 0, 1, 2, 0])  # texts of several lengths, one twice
    token = judge.known("weather")
    assert token is not None
    with torch.no_grad():
        found = judge.log_odds(texts, rows, judge.embed([token])[0])
    for row, odds in zip(rows.tolist(), found.tolist(), strict=True):
        reference = np.mean([plain_odds(model, TEXTS[row], word) for word in REFERENCE])
        assert odds == pytest.approx(plain_odds(model, TEXTS[row], "weather") - reference, abs=2e-4)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In float64 throughout: GPT-2 on its own attention, since ours, RMS norms and rotary phases compute in float32."""
    model = tiny_words.loaded("gpt2", **ARCHITECTURES["gpt2"])
    model.hf.double().set_attn_implementation("eager")
    judge = Judge(model)
    texts = judge.read([judge.text_ids(text) for text in TEXTS])
    embedded = judge.embed(range(10, 60))
    v = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    fires, prior = torch.tensor([True, False, False, True]), torch.linspace(-3, 0, 50).double().log_softmax(dim=0)

    def loss(v: torch.Tensor) -> torch.Tensor:
        def judges(p: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return judge.log_odds(texts, rows, p @ embedded)

        return token_loss(v, judges, torch.arange(4), fires, prior, 0.05, 0.01)

    asked = v.clone().requires_grad_()
    [gradient] = torch.autograd.grad(loss(asked), [asked])
    assert float(gradient.abs().max()) > 1e-3
    for at in range(50):
        step = torch.zeros(50).double()
        step[at] = 1e-5
        with torch.no_grad():
            slope = float(loss(v + step) - loss(v - step)) / 2e-5
        assert float(gradient[at]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_own_attention_passes_the_gradient_on(architecture: str) -> None:
    model = tiny_words.loaded(architecture, **ARCHITECTURES[architecture])
    judge = Judge(model)
    texts = judge.read([judge.text_ids(text) for text in TEXTS])
    slot = judge.embed([20])[0].clone().requires_grad_()

    def said(slot: torch.Tensor) -> torch.Tensor:
        return judge.log_odds(texts, torch.arange(4), slot).double().sum()

    [gradient] = torch.autograd.grad(said(slot), [slot])
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    steepest = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        rise = float(said(slot + steepest) - said(slot - steepest))
    assert rise == pytest.approx(2e-3 * float(gradient.norm()), rel=0.02)


def test_the_prior_is_what_the_model_expects_in_the_words_place(model: LoadedModel, judge: Judge) -> None:
    texts = judge.read([judge.text_ids(text) for text in TEXTS])
    words = [30, 40, 50, 60]
    prior = texts.log_prior(words, torch.tensor([0, 2])).exp()
    shares = texts.next_logits[[0, 2]][:, words].softmax(dim=1)
    torch.testing.assert_close(prior, shares.mean(dim=0))
    assert float(prior.sum()) == pytest.approx(1.0)


def test_no_known_text_holds_a_label_and_no_label_is_shown_with_its_answer() -> None:
    pairs = known_texts()
    labels = {label for label, _ in pairs}
    assert len(labels) == 10
    assert all(sum(own == label for own, _ in pairs) == 10 for label in labels)
    assert len({text for _, text in pairs}) == len(pairs)
    stems = {label.removesuffix("s").removesuffix("ie") for label in labels} | {"colour", "country", "medical"}
    for label, text in pairs:
        words = re.findall(r"[a-z]+", text.casefold())
        assert not [word for word in words if any(word.startswith(stem) for stem in stems)], (label, text)
    demonstrated = {word for _, one, _, other, _ in DEMONSTRATIONS for word in (one, other)}
    assert not labels & {*demonstrated, *REFERENCE}


def test_a_random_judge_is_refused_once_and_for_all(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(":memory:") as store:
        with pytest.raises(JudgeRefused, match=r"AUC of 0\.[45]\d \(100 texts; chance is 0\.50\), and at least 0\.70"):
            check_judge(judge, store)
        monkeypatch.setattr(judge_check, "_measure", lambda *_: pytest.fail("it was measured before"))
        with pytest.raises(JudgeRefused, match="tiny-words-llama"):
            check_judge(judge, store)
        known = stored_check(store, judge.model.facts.fingerprint, "a name")
        assert known is not None
        assert 0.35 < known.auc < 0.65
        assert set(known.labels) == {label for label, _ in known_texts()}
        assert stored_check(store, "another", "a name") is None


def test_a_judge_that_knows_passes(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [label for label, _ in known_texts()]
    tokens = {int(judge.embed([judge.known(label) or 0])[0].sum() * 1e6): label for label in labels}

    def knows(texts: Any, rows: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        asked = tokens[int(slot.sum() * 1e6)]
        return torch.tensor([float(labels[row] == asked) for row in rows.tolist()])

    monkeypatch.setattr(judge, "log_odds", knows)
    monkeypatch.setattr(judge, "read", lambda texts, progress: None)
    with Store.open(":memory:") as store:
        found = check_judge(judge, store)
    assert found.auc == 1.0
    assert found.refusal is None


def test_the_check_can_be_cancelled_and_leaves_nothing(judge: Judge) -> None:
    steps: list[float] = []
    stop = Progress(lambda fraction, _: steps.append(fraction), lambda: len(steps) > 20)
    with Store.open(":memory:") as store:
        with pytest.raises(Cancelled):
            check_judge(judge, store, stop)
        assert stored_check(store, judge.model.facts.fingerprint, "") is None
    assert len(steps) == 21


def test_whole_words_are_whole_and_not_twice(model: LoadedModel) -> None:
    names = model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer))))
    everything = [np.arange(len(names))]
    words = [names[token] for token in whole_words(model, everything)]
    assert len(words) > 300
    assert all(re.fullmatch("▁[A-Za-z]{3,}", word) for word in words)
    assert len({word.casefold() for word in words}) == len(words)
    assert len(whole_words(model, everything, 40)) == 40
    river, text = names.index("▁river"), names.index("Text")
    others = np.delete(np.arange(len(names)), river)
    split, whole = np.array([river, text]), np.array([river, river])
    assert river not in whole_words(model, [others])
    assert river in whole_words(model, [others, split, whole, whole])
    assert river not in whole_words(model, [others, split, split, whole])


def test_a_tokenizer_without_words_is_refused_in_a_sentence() -> None:
    bytes_only = tiny.loaded("llama")
    with pytest.raises(BadRequest, match="no single tokens for yes, no"):
        Judge(bytes_only)
    with pytest.raises(BadRequest, match="holds 0 words that are one token"):
        whole_words(bytes_only, [np.array([5, 6, 7])])
