import pytest

from analysis.answer_span import tokens_before_answer


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["So", " the", " answer", " is", " 42"], 2),
        (["x", "=", "4", "\n", "####", " 4"], 4),
        (["Hence", " $", "\\", "boxed", "{4}"], 2),
        (["The", " Ans", "wer", "  is", " 4"], 1),
        (["no", " answers", " here"], 3),
        ([], 0),
    ],
)
def test_features_end_before_the_answer_begins(tokens: list[str], expected: int) -> None:
    assert tokens_before_answer(tokens) == expected


def test_a_token_that_holds_the_beginning_is_cut_off() -> None:
    assert tokens_before_answer(["well", ", an", "swer is 3"]) == 1
