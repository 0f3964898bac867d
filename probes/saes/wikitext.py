"""Running text out of a MediaWiki dump: enough of the markup to read the prose, and nothing cleverer."""

import re
from collections.abc import Iterator
from io import BufferedIOBase
from xml.etree import ElementTree

__all__ = ["articles", "plain_text"]

_INNERMOST_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}")
_FILE = re.compile(r"\[\[(?:File|Image|Category):[^\[\]]*\]\]", re.IGNORECASE)
_DROPPED = re.compile(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<(math|gallery|table|code)\b.*?</\1>", re.DOTALL)
_LINK = re.compile(r"\[\[(?!(?:File|Image|Category):)(?:[^\[\]|]*\|)?([^\[\]]*)\]\]", re.IGNORECASE)
_URL = re.compile(r"\[https?://\S+ ?([^\]]*)\]")
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE)
_LAST_SECTIONS = re.compile(r"^==\s*(See also|References|Notes|External links|Further reading)\s*==.*", re.M | re.S)
_TAG_OR_LIST_SIGN = re.compile(r"<[^>]+>|^[*#:;|!]+ ?.*$", re.MULTILINE)


def articles(dump: BufferedIOBase) -> Iterator[tuple[str, str]]:
    """Title and running text of each article of an XML dump, redirects and empty pages left out."""
    for _, page in ElementTree.iterparse(dump):
        if page.tag.endswith("}page"):
            title = page.findtext("{*}title") or ""
            text = plain_text(page.findtext("{*}revision/{*}text") or "")
            page.clear()
            if text:
                yield title, text


def plain_text(markup: str) -> str:
    """Prose and headings of an article, without templates, tables, lists, notes, last sections; empty for redirects."""
    if markup.lstrip().upper().startswith("#REDIRECT"):
        return ""
    text = _LAST_SECTIONS.sub("", _DROPPED.sub("", markup))
    text = _LINK.sub(r"\1", _remove_from_inside(_INNERMOST_TEMPLATE, text))
    text = _URL.sub(r"\1", _FILE.sub("", text))  # captions hold links, which are gone by now
    text = _TAG_OR_LIST_SIGN.sub("", _HEADING.sub(r"\1", text.replace("'''", "").replace("''", "")))
    return re.sub(r"\n{3,}", "\n\n", text.replace("&nbsp;", " ")).strip()


def _remove_from_inside(pattern: re.Pattern[str], text: str) -> str:
    """Templates nest, and a regular expression cannot count: take the innermost away until none is left."""
    while True:
        text, count = pattern.subn("", text)
        if not count:
            return text
