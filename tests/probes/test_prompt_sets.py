"""Prompt sets: what is built in, what is read, and that a broken line imports nothing."""

import json

import numpy as np
import pytest

from cache.store import Store
from probes.errors import BadRequest
from probes.model.catalog import EMBEDDED
from probes.prompts import bank, examples
from probes.prompts.library import all_sets, find_set, import_set, remove_set
from probes.prompts.sets import BUILT_IN, MAX_PROMPTS, Prompt, PromptSet, built_in, read_set

GOOD = (
    {"id": "a", "text": "The sky is", "group": "factual", "answer": "blue", "response": "The sky is grey."},
    {"id": "b", "messages": [{"role": "user", "content": "Two and two?"}], "group": "reasoning", "answer": "4"},
    {"id": "c", "text": "Nothing is known of this one."},
)


def lines(*rows: object) -> bytes:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows).encode()


def own(*rows: object, name: str = "own") -> PromptSet:
    return read_set(name, lines(*rows), "own.jsonl", "own.jsonl")


def built(name: str) -> PromptSet:
    return {one.name: one for one in built_in()}[name]


def test_a_set_is_read_as_it_is_written() -> None:
    found = own(*GOOD)
    assert found.prompts[0] == Prompt("a", "The sky is", None, "factual", "blue", "The sky is grey.")
    assert found.prompts[1].messages == ({"role": "user", "content": "Two and two?"},)
    assert (found.prompts[2].group, found.prompts[2].answer, found.prompts[2].response) == (None, None, None)
    assert dict(found.groups) == {"factual": 1, "reasoning": 1}
    assert read_set("own", found.jsonl().encode(), "elsewhere", "x").set_id == found.set_id


def test_a_mark_of_byte_order_empty_lines_and_carriage_returns_are_no_content() -> None:
    plain = own(*GOOD)
    other = read_set("own", b"\xef\xbb\xbf" + lines(*GOOD).replace(b"\n", b"\r\n\r\n"), "own.jsonl", "own.jsonl")
    assert other == plain


def test_name_and_every_prompt_are_in_the_key() -> None:
    assert own(*GOOD, name="other").set_id != own(*GOOD).set_id
    assert own(*GOOD[:2]).set_id != own(*GOOD).set_id
    assert own({**GOOD[0], "answer": "grey"}, *GOOD[1:]).set_id != own(*GOOD).set_id


BROKEN = {
    "not valid JSON": '{"id": "x", "text": "y"\n',
    "not a JSON object": "[1, 2]\n",
    "nested too deeply": "[" * 100_000 + "\n",
    "no key 'prompt'": {"id": "x", "prompt": "y"},
    "an id is missing": {"text": "y"},
    "id must be text": {"id": 7, "text": "y"},
    "id has 101 characters": {"id": "x" * 101, "text": "y"},
    "id must be on one line": {"id": "x\ny", "text": "y"},
    "either text or messages": {"id": "x"},
    "text must be text": {"id": "x", "text": "  "},
    "Message 0 must have the role": {"id": "x", "messages": [{"role": "robot", "content": "hi"}]},
    "content must be text": {"id": "x", "messages": [{"role": "user", "content": ""}]},
    "group must be text": {"id": "x", "text": "y", "group": 3},
    "answer must be text": {"id": "x", "text": "y", "answer": ["a", "b"]},
    "no text": {"id": "x", "text": "half \ud800 a sign"},
    "stands there 2 times": '{"id": "x", "text": "y", "text": "z"}\n',
    "the id 'a' stands on line 1": {"id": "a", "text": "y"},
    "the same prompt stands on line 1": {"id": "x", "text": "The sky is"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_is_named_with_number_and_reason(what: str) -> None:
    with pytest.raises(BadRequest) as refused:
        own(GOOD[0], "\n", BROKEN[what], GOOD[1])
    assert str(refused.value).startswith("own.jsonl, line 3: ")
    assert what in str(refused.value)
    assert str(refused.value).endswith("Nothing was imported.")


def test_both_text_and_messages_are_one_too_many() -> None:
    with pytest.raises(BadRequest, match="either text or messages"):
        own({**GOOD[1], "text": "The sky is"})


def test_text_that_is_not_utf_8_is_named_by_its_line() -> None:
    with pytest.raises(BadRequest, match=r"line 2: byte 2[0-9] is no UTF-8 text"):
        read_set("own", lines(GOOD[0]) + b'{"id": "x", "text": "caf\xe9"}\n', "own", "own")


def test_empty_files_bad_names_and_too_many_prompts_are_refused() -> None:
    with pytest.raises(BadRequest, match="holds no prompts"):
        own()
    for name in ("", ".hidden", "a b", "x" * 65, "../up"):
        with pytest.raises(BadRequest, match="name has 1 to 64"):
            own(*GOOD, name=name)
    with pytest.raises(BadRequest, match=f"line {MAX_PROMPTS + 1}: a set has at most"):
        own(*({"id": str(i), "text": str(i)} for i in range(MAX_PROMPTS + 1)))


def test_an_imported_set_comes_back_and_the_same_again_changes_nothing(store: Store) -> None:
    import_set(store, own(*GOOD))
    import_set(store, own(*GOOD))
    assert find_set(store, "own") == own(*GOOD)
    assert [one.name for one in all_sets(store)] == [*(one.name for one in built_in()), "own"]


def test_a_name_stands_for_one_set(store: Store) -> None:
    import_set(store, own(*GOOD))
    with pytest.raises(BadRequest, match="with other prompts"):
        import_set(store, own(*GOOD[:1]))
    assert find_set(store, "own") == own(*GOOD)
    with pytest.raises(BadRequest, match="built-in set"):
        import_set(store, own(*GOOD, name="idioms"))


def test_an_imported_set_can_be_removed_and_a_built_in_one_cannot(store: Store) -> None:
    import_set(store, own(*GOOD))
    remove_set(store, "own")
    with pytest.raises(BadRequest, match="no prompt set 'own'; there are factual-reasoning, idioms, passages"):
        find_set(store, "own")
    assert store.prompts(own(*GOOD).set_id).empty
    with pytest.raises(BadRequest, match="built in"):
        remove_set(store, "idioms")
    import_set(store, own(*GOOD[:1]))
    assert len(find_set(store, "own").prompts) == 1


def test_built_in_sets_have_their_sizes_and_no_prompt_twice() -> None:
    assert dict(built("factual-reasoning").groups) == {"factual": 64, "reasoning": 64}
    assert len(built("idioms").prompts) >= 60
    assert len(built("passages").prompts) >= 40
    shown = [" ".join(prompt.shown.lower().split()) for one in built_in() for prompt in one.prompts]
    assert len(set(shown)) == len(shown)
    assert all(one.source == BUILT_IN for one in built_in())


def test_questions_share_one_template_and_have_short_answers() -> None:
    head, tail = "Answer the question with one word or one number.\nQuestion: ", "?\nAnswer:"
    for prompt in built("factual-reasoning").prompts:
        assert prompt.text is not None
        assert prompt.answer is not None
        assert prompt.text.startswith(head)
        assert prompt.text.endswith(tail)
        assert len(prompt.answer.split()) == 1
        asked = prompt.text.removeprefix(head).lower().replace("?", " ").replace(",", " ").replace(".", " ").split()
        gives_away = prompt.answer.lower() in asked
        assert not (gives_away and prompt.group == "factual"), prompt.id


def test_idioms_are_cut_before_one_word() -> None:
    for prompt in built("idioms").prompts:
        assert prompt.text is not None
        assert prompt.answer is not None
        assert not prompt.text.endswith((" ", "."))
        assert prompt.answer.isalpha()


def test_no_passage_shares_six_words_in_a_row_with_the_bank_or_an_example() -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}

    others = set().union(*(runs(text.text) for text in (*bank(), *examples())))
    for prompt in built("passages").prompts:
        assert not runs(prompt.shown) & others, prompt.id


@pytest.mark.model
def test_built_in_sets_are_matched_in_length_and_as_long_as_they_say(embedded_folder: object) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder, local_files_only=True)
    assert EMBEDDED in str(embedded_folder)

    def counts(prompts: list[Prompt]) -> np.ndarray:
        return np.array([1 + len(tokenizer(p.text, add_special_tokens=False)["input_ids"]) for p in prompts])

    questions = built("factual-reasoning").prompts
    factual, reasoning = (
        counts(sorted((p for p in questions if p.group == group), key=lambda p: p.id))
        for group in ("factual", "reasoning")
    )
    assert (np.abs(factual - reasoning) <= 0.1 * np.maximum(factual, reasoning)).all()
    assert abs(factual.mean() - reasoning.mean()) < 0.5
    assert factual.min() >= 32, "sinks are undefined below"
    passages = counts(list(built("passages").prompts))
    assert passages.min() >= 64
    assert passages.max() <= 512
