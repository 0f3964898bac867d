import pytest

from analysis.answer_rule import is_right


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (" Paris.", "Paris"),
        ("The capital of France is paris, a city.", "Paris"),
        (" 8\nQuestion: How many legs have two of them?\nAnswer: 16", "8"),
        ("A spider has eight legs.", "8"),
        ("3 and 4 make 7.", "7"),
        ("We add 3 and 4.\nThe answer is 7, not 8.\n\nNext 9", "7"),
        ("12 of 1,200\n#### 1,200", "1200"),
        ("so $\\boxed{-2.5}$ follows", "-2.5"),
        ("It is the Atlantic  Ocean", "Atlantic Ocean"),
    ],
)
def test_a_right_response_is_right(response: str, answer: str) -> None:
    assert is_right(response, answer)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("", "Paris"),
        ("Parisian", "Paris"),
        ("London.\n\nParis", "Paris"),
        (" 5\nQuestion: 8", "8"),
        ("3 and 4 make 8.", "7"),
        ("The answer is 8. It was 7 before", "7"),
        ("18", "8"),
        ("no number at all", "8"),
    ],
)
def test_a_wrong_one_is_wrong(response: str, answer: str) -> None:
    assert not is_right(response, answer)


def test_an_answer_without_a_letter_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a letter or digit"):
        is_right("x", " !")
