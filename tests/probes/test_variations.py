"""Variations of a run's token ids: what they hold, what is aligned with what, and which cannot be made."""

import pytest
from transformers import PreTrainedTokenizerFast

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel, ModelFacts
from probes.model.tokenise import chat_ids, text_ids
from probes.variations import KINDS, STORED, Reader, Variation, Varied, vary
from tests import tiny

TEMPLATE = (
    "{% for m in messages %}<mark>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<mark>{% endif %}"
)
BOS = 1


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return tiny.loaded("llama").facts


@pytest.fixture
def reader(facts: ModelFacts) -> Reader:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    return Reader(facts, tokenizer)


@pytest.fixture
def ids(reader: Reader) -> tuple[int, ...]:
    return text_ids(reader, "The old mill")


def made(ids: tuple[int, ...], reader: Reader, kind: str, text: str | None = None) -> Varied:
    """The variation, its alignment checked: all pairs inside both texts."""
    varied = vary(ids, reader, Variation(kind, text))
    varied.alignment.within(len(ids), len(varied.token_ids))
    return varied


def holds_the_same_tokens(ids: tuple[int, ...], varied: Varied) -> bool:
    return all(ids[a] == varied.token_ids[b] for a, b in varied.alignment.pairs)


def test_without_bos(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "no_bos")
    assert varied.token_ids == ids[1:]
    assert varied.alignment.pairs == tuple((i, i - 1) for i in range(1, len(ids)))


def test_another_first_token_is_another_special_or_the_one_given(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "first_token")
    assert varied.token_ids[0] in set(reader.tokenizer.all_special_ids) - {BOS}
    assert varied.token_ids[1:] == ids[1:]
    assert varied.alignment.pairs == tuple((i, i) for i in range(len(ids)))
    mark = reader.tokenizer.convert_tokens_to_ids("<mark>")
    assert made(ids, reader, "first_token", "<mark>").token_ids == (mark, *ids[1:])
    assert made(ids, reader, "first_token", "x").token_ids == (*text_ids(reader, "x", bos=False), *ids[1:])


def test_without_bos_the_first_word_is_replaced(ids: tuple[int, ...], reader: Reader) -> None:
    assert made(ids[1:], reader, "first_token", "x").token_ids[1:] == ids[2:]


def test_chat_holds_the_text_whole_and_aligned(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "chat")
    assert varied.token_ids == chat_ids(reader, [{"role": "user", "content": "The old mill"}])
    assert [a for a, _ in varied.alignment.pairs] == list(range(len(ids)))
    assert holds_the_same_tokens(ids, varied)
    assert made(ids[1:], reader, "chat").token_ids[0] != BOS, "a run without BOS gets none"


def test_chat_that_tokenises_the_text_otherwise_aligns_what_matches(facts: ModelFacts) -> None:
    """A tokenizer that merges "ab": the letters of a run that held them apart come back as one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "</s>", "<mark>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *letters, "ab"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    merging = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    merging.chat_template = TEMPLATE
    ids = (BOS, *(vocabulary[letter] for letter in "xabz"))
    varied = made(ids, Reader(facts, merging), "chat")
    assert vocabulary["ab"] in varied.token_ids
    assert [a for a, _ in varied.alignment.pairs] == [0, 1, 4]
    assert holds_the_same_tokens(ids, varied)


def test_shuffling_keeps_the_tokens_and_the_first_and_is_repeatable(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "shuffled")
    assert varied.token_ids != ids
    assert varied.token_ids[0] == ids[0]
    assert sorted(varied.token_ids) == sorted(ids)
    assert len(varied.alignment) == len(ids)
    assert holds_the_same_tokens(ids, varied)
    assert made(ids, reader, "shuffled") == varied
    assert vary(ids, reader, Variation("shuffled", seed=1)).token_ids != varied.token_ids
    few = (BOS, 10, 10, 11)
    assert all(vary(few, reader, Variation("shuffled", seed=s)).token_ids != few for s in range(20))


def test_twice_has_one_bos_and_aligns_the_first_copy(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "twice")
    assert varied.token_ids == ids + ids[1:]
    assert varied.token_ids.count(BOS) == 1
    assert varied.alignment.pairs == tuple((i, i) for i in range(len(ids)))
    assert made(ids[1:], reader, "twice").token_ids == ids[1:] * 2


def test_own_text_keeps_the_bos_of_the_run(ids: tuple[int, ...], reader: Reader) -> None:
    varied = made(ids, reader, "own", "The new mill")
    assert varied.token_ids == text_ids(reader, "The new mill")
    assert holds_the_same_tokens(ids, varied)
    assert len(varied.alignment) >= len("The mill")
    assert made(ids[1:], reader, "own", "mill").token_ids == text_ids(reader, "mill", bos=False)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "own"])
def test_a_loaded_model_is_read_like_its_tokenizer(kind: str, reader: Reader, ids: tuple[int, ...]) -> None:
    model: LoadedModel = tiny.loaded("llama")
    if kind == "chat":
        model.tokenizer.chat_template = TEMPLATE
    of_model = vary(ids, Reader(model.facts, model.tokenizer), Variation(kind))
    assert of_model == vary(ids, reader, Variation(kind))


def refusal(ids: tuple[int, ...], reader: Reader, kind: str, text: str | None = None) -> str:
    with pytest.raises(BadRequest) as refused:
        vary(ids, reader, Variation(kind, text))
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_what_cannot_be_made_is_one_sentence(ids: tuple[int, ...], reader: Reader, facts: ModelFacts) -> None:
    assert refusal(ids[1:], reader, "no_bos").startswith("This run does not begin with a BOS token")
    assert refusal((BOS,), reader, "no_bos") == "Without its BOS token this run has no tokens."
    assert refusal(ids, reader, "first_token", "two") == (
        "'two' is 3 tokens of tiny-llama; the first token must be one."
    )
    assert refusal(ids, reader, "first_token", "<s>") == "The text begins with that token already."
    plain = Reader(facts, tiny.tokenizer())
    assert refusal(ids, plain, "chat") == "tiny-llama has no chat template."
    assert "in a template already" in refusal(chat_ids(reader, [{"role": "user", "content": "x"}]), reader, "chat")
    assert refusal((BOS,), reader, "chat") == "There is no text to put into the chat template."
    assert refusal((BOS, 10, 11), reader, "shuffled").startswith("There are only 2 tokens to shuffle")
    assert refusal((BOS, 10, 10, 10), reader, "shuffled") == "All tokens to shuffle are the same."
    long = (BOS, *(10 + i % 90 for i in range(200)))
    assert refusal(long, reader, "twice") == "Twice the text is 401 tokens; tiny-llama takes at most 256."
    assert refusal((BOS,), reader, "twice") == "There is no text to repeat."
    assert "takes at most 256" in refusal(long + long[1:51], reader, "chat")
    assert "takes at most 256" in refusal(ids, reader, "own", "x" * 300)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "backwards"}, "A variation is one of"),
        ({"kind": "chat", "text": "x"}, "takes no text"),
        ({"kind": "own"}, "Give a text of your own"),
        ({"kind": "own", "text": " \n"}, "Give a text of your own"),
        ({"kind": "first_token", "text": ""}, "Give the first token"),
        ({"kind": "shuffled", "seed": -1}, "The seed must be 0 or more"),
    ],
)
def test_a_variation_checks_itself(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Variation(**settings)  # type: ignore[arg-type]


def test_the_stored_ones_are_all_that_need_no_text() -> None:
    assert [variation.kind for variation in STORED] == [kind for kind in KINDS if kind != "own"]
