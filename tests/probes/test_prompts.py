"""The shipped texts: distinct, long enough, and the bank apart from the examples."""

import os
from pathlib import Path

import pytest

from probes.prompts import bank, examples


def _word_runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def test_ids_are_distinct_and_the_river_comes_first() -> None:
    ids = [text.id for text in (*examples(), *bank())]
    assert len(set(ids)) == len(ids)
    assert examples()[0].text.startswith("The river that runs past the old mill")


def test_no_text_of_the_bank_shares_six_words_in_a_row_with_an_example() -> None:
    shown = set().union(*(_word_runs(example.text, 6) for example in examples()))
    for text in bank():
        assert not shown & _word_runs(text.text, 6), text.id


def test_bank_texts_do_not_repeat_each_other() -> None:
    seen: set[tuple[str, ...]] = set()
    for text in bank():
        runs = _word_runs(text.text, 8)
        assert not seen & runs, text.id
        seen |= runs


@pytest.mark.model
def test_lengths_in_tokens_of_the_embedded_model() -> None:
    from transformers import AutoTokenizer

    home = Path(os.environ.get("EIGENSCOPE_HOME", "~/.local/share/eigenscope")).expanduser()
    tokenizer = AutoTokenizer.from_pretrained(home / "models" / "smollm2-135m-instruct", local_files_only=True)
    shown = [len(tokenizer(example.text).input_ids) for example in examples()]
    kept = [len(tokenizer(text.text).input_ids) for text in bank()]
    assert all(150 <= length <= 260 for length in shown)
    assert all(100 <= length <= 400 for length in kept)
    assert sum(kept) >= 5_000
