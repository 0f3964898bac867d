"""Ranges, pins and what is in sight: in and out of an address, within the run, whatever the address says."""

import random
import string

import pytest

from app.selection import COLOURS, Bounds, Pin, Selection, clamp, parse, parse_pins, write, write_pins

LIMITS = Bounds(point=30, position=257, head=8, dimension=575, latent=4607)
START = LIMITS.start()


def test_what_is_written_is_read_again() -> None:
    chosen = Selection(12, 0, 3, 507, 99, 2, (31, 40))
    written = write(chosen)
    assert written == {
        "point": "12", "pos": "0", "head": "3", "dim": "507", "latent": "99", "from": "2", "span": "31-40",
    }  # fmt: skip
    names = {"pos": "position", "dim": "dimension", "from": "first"}
    parts = {names.get(key, key): value for key, value in written.items()}
    assert parse(parts, LIMITS, START) == (chosen, ())


@pytest.mark.parametrize(
    "span", ["", "5", "-", "40-31", "0-258", "a-b", "1-2-3", "٣-٥", "1 - 2", "-1-2", "1-9999999999"]
)
def test_a_bad_range_is_told_and_nothing_is_marked(span: str) -> None:
    chosen, problems = parse({"span": span}, LIMITS, START)
    assert chosen == START
    assert len(problems) == 1
    assert "a range must be FIRST-LAST between 0 and 257" in problems[0]


def test_changes_are_clamped_and_a_range_is_ordered() -> None:
    chosen = clamp(START, {"span": (400, 7), "point": 99, "head": -3, "first": 300}, LIMITS)
    assert (chosen.span, chosen.point, chosen.head, chosen.first) == ((7, 257), 30, 0, 257)
    assert clamp(chosen, {"span": None, "point": None, "head": None}, LIMITS).span is None
    with pytest.raises(TypeError, match="a selection has no 'colour'"):
        clamp(START, {"colour": 1}, LIMITS)


def test_pins_are_written_and_read_again() -> None:
    pins = (
        Pin("o", Selection(18, 41)),
        Pin("g", Selection(12, 0, dimension=507)),
        Pin("b", Selection(3, 9, 2, None, 7)),
    )
    text = write_pins(pins)
    assert text == "o18.41~g12.0.d507~b3.9.h2.l7"
    assert parse_pins(text, LIMITS) == (pins, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x18.41", "is no pin"),
        ("o18", "is no pin"),
        ("o18.41.q3", "is no pin"),
        ("o99.41", "lies outside this run"),
        ("o18.41.d576", "lies outside this run"),
        ("<b>", "is no pin"),
    ],
)
def test_a_bad_pin_is_told_and_left_out_the_others_stay(text: str, reason: str) -> None:
    pins, problems = parse_pins(f"{text}~g1.2", LIMITS)
    assert [pin.colour for pin in pins] == ["g"]
    assert len(problems) == 1
    assert reason in problems[0]


def test_a_colour_is_taken_once() -> None:
    pins, problems = parse_pins("o1.2~o3.4", LIMITS)
    assert pins == (Pin("o", Selection(1, 2)),)
    assert len(problems) == 1


def test_a_thousand_fuzzed_pins_and_ranges_never_raise() -> None:
    draw = random.Random(0)
    letters = string.printable + "~.-ogpb0123456789" * 4
    for _ in range(1000):
        text = "".join(draw.choices(letters, k=draw.randrange(40)))
        pins, problems = parse_pins(text, LIMITS)
        assert len(pins) <= len(COLOURS)
        assert all(len(problem) < 200 for problem in problems)
        chosen, _ = parse({"span": text, "first": text}, LIMITS, START)
        assert chosen.span is None or 0 <= chosen.span[0] <= chosen.span[1] <= 257


def test_only_what_is_selected_is_said() -> None:
    assert Selection(1, 2).as_dict() == {"point": 1, "position": 2}
    assert Selection(1, 2, span=(3, 4)).as_dict() == {"point": 1, "position": 2, "span": [3, 4]}
