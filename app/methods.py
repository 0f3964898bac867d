"""What docs/methods says, for the "how to read it" of panels: one text for both, so they cannot drift apart."""

from functools import cache
from pathlib import Path

__all__ = ["section"]

_FOLDER = Path(__file__).parents[1] / "docs" / "methods"


@cache
def section(page: str, heading: str) -> str:
    """The Markdown under ``## heading`` of ``docs/methods/<page>.md``.

    Raises KeyError if the page has no such heading, FileNotFoundError if there is no such page.
    """
    text = (_FOLDER / f"{page}.md").read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        if title.strip() == heading:
            return body.strip()
    raise KeyError(f"docs/methods/{page}.md has no section {heading!r}")
