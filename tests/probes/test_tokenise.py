"""Text to token ids: BOS, typed specials, chat templates, hostile text."""

import pytest

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.tokenise import chat_ids, pieces, text_ids
from probes.prompts.messages import parse_messages
from tests import tiny

TEMPLATE = "{% for m in messages %}<mark>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}<mark>assistant\n"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def test_bos_is_added_once_and_only_where_the_model_has_one(model: LoadedModel) -> None:
    assert text_ids(model, "ab")[0] == model.facts.bos_id == 1
    assert len(text_ids(model, "ab")) == 3
    assert len(text_ids(model, "ab", bos=False)) == 2
    without = tiny.loaded("llama", bos=False)
    assert without.facts.bos_id is None
    assert len(text_ids(without, "ab")) == 2


def test_typed_specials_are_text(model: LoadedModel) -> None:
    ids = text_ids(model, "<mark></s>", bos=False)
    assert len(ids) == len("<mark></s>")
    assert not set(ids) & set(model.tokenizer.all_special_ids)


def test_only_the_template_emits_specials(model: LoadedModel) -> None:
    model.tokenizer.chat_template = TEMPLATE
    try:
        ids = chat_ids(model, [{"role": "user", "content": "say <mark>"}])
    finally:
        model.tokenizer.chat_template = None
    assert ids[0] == model.facts.bos_id
    assert ids.count(model.tokenizer.convert_tokens_to_ids("<mark>")) == 2  # the user's turn, the assistant's turn
    assert "".join(pieces(model.tokenizer, ids)).endswith("say <mark></s>\n<mark>assistant")


def test_without_a_template_chat_is_refused(model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match="no chat template"):
        chat_ids(model, [{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_is_refused(model: LoadedModel, text: str) -> None:
    with pytest.raises(BadRequest, match="empty"):
        text_ids(model, text)


def test_the_limit_is_the_context(model: LoadedModel) -> None:
    assert len(text_ids(model, "a" * 255)) == 256
    with pytest.raises(BadRequest, match="257 tokens; tiny-llama takes at most 256"):
        text_ids(model, "a" * 256)
    with pytest.raises(BadRequest, match="characters"):
        text_ids(model, "a" * 1_000_001)


def test_a_lone_surrogate_is_named(model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match="surrogate stands at character 2"):
        text_ids(model, "ab\ud800")


@pytest.mark.parametrize(
    "text", ["a\x00b", "\u202eabc", "שלום", "🙂" * 5, "\n" * 20 + "x", "<script>alert(1)</script>", "$x^2$"]
)
def test_odd_text_goes_through_whole(model: LoadedModel, text: str) -> None:
    ids = text_ids(model, text, bos=False)
    assert model.tokenizer.decode(ids) == text


def test_a_part_of_a_character_shows_as_its_bytes(model: LoadedModel) -> None:
    ids = text_ids(model, "é!", bos=False)
    assert pieces(model.tokenizer, ids) == ("\\xC3", "\\xA9", "!")


def test_messages_are_read_strictly() -> None:
    assert parse_messages('[{"role": "user", "content": "hi"}]') == ({"role": "user", "content": "hi"},)
    for text in ("", "{}", "[]", "[1]", '[{"role": "user", "content": 1}]', '[{"role": "x", "content": ""}]'):
        with pytest.raises(BadRequest):
            parse_messages(text)
