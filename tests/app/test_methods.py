"""Panels quote docs/methods: what they quote must be there."""

import re
from pathlib import Path

import pytest

from app.methods import section
from app.panels.registry import panels

REPO = Path(__file__).parents[2]
QUOTED = sorted(
    {
        match.groups()
        for path in (REPO / "app").rglob("*.py")
        for match in re.finditer(r'section\("([^"]+)", "([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    | {quoted for panel in panels() for quoted in panel.how}
)


def test_something_is_quoted() -> None:
    assert ("sinks", "Sink score by head") in QUOTED


@pytest.mark.parametrize(("page", "heading"), QUOTED)
def test_every_quoted_section_exists_and_says_when_not_to_trust_it(page: str, heading: str) -> None:
    assert "**When not to trust it.**" in section(page, heading)


def test_every_panel_says_how_it_is_read() -> None:
    silent = [panel.key for panel in panels() if not panel.how]
    assert silent == [key for key in silent if key.startswith("compare-")], silent


def test_a_section_ends_where_the_next_begins() -> None:
    assert "##" not in section("sinks", "Values and VATP")
    assert section("sinks", "Values and VATP").startswith("VATP")


def test_a_missing_section_is_named() -> None:
    with pytest.raises(KeyError, match=r"docs/methods/sinks\.md has no section 'Nothing'"):
        section("sinks", "Nothing")
