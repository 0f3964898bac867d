"""Words of a report as HTML: Markdown of the app and of people, raw text, and the text of a run as a strip of tokens."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt

from app.text import html, printable

__all__ = ["inline", "lines", "literal", "literal_lines", "plain", "rich", "strip"]

_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_JOINER = "\u2060"  # app.text.markdown puts it where the app's own Markdown would turn text into something else
_TOKENS = 1024  # of a text that are printed in full
_HEAD, _AROUND = 512, 64


def literal(text: str) -> str:
    """Raw text on one line, as HTML text or attribute value."""
    return escape(printable(text), quote=True)


def lines(text: str) -> str:
    """Raw text of a person, its lines kept."""
    return literal_lines(text).replace("\n", "<br>")


def literal_lines(text: str) -> str:
    """Raw text with its line breaks, for ``<pre>``."""
    return "\n".join(literal(line) for line in text.replace("\r\n", "\n").split("\n"))


def rich(text: str) -> str:
    """Markdown as HTML blocks: headings, emphasis, lists, code, tables. HTML in it is shown, not run; links and pictures
    stand as their text and address, so that nothing in a report leads out of it."""
    shown = "\n".join(printable(line.expandtabs(4)) for line in text.replace(_JOINER, "").split("\n"))
    return str(_parser().render(shown))


def plain(text: str) -> str:
    """Markdown of a panel as text for a terminal: what ``app.text.markdown`` made literal, without its backslashes."""
    return _ESCAPED.sub(r"\1", text.replace(_JOINER, ""))


def inline(text: str) -> str:
    """One line of Markdown, without a paragraph around it."""
    return str(_parser().renderInline(text.replace(_JOINER, "")))


def strip(tokens: Sequence[str], marked: Mapping[int, str]) -> str:
    """The tokens of a text, those at the positions of ``marked`` marked with the words it gives.

    Of a long text its beginning is shown, and what stands around each marked token.
    """
    shown = _shown(len(tokens), marked)
    parts, last = [], -1
    for position in shown:
        if position > last + 1:
            parts.append(f'<span class="cut"> … {position - last - 1:,} tokens … </span>')
        word = html(tokens[position])
        told = f'title="{position}"'
        if position in marked:
            told = f'title="{position}: {literal(marked[position])}" class="marked"'
        parts.append(f"<span {told}>{word}</span>")
        last = position
    if last < len(tokens) - 1:
        parts.append(f'<span class="cut"> … {len(tokens) - 1 - last:,} tokens</span>')
    return f'<p class="strip">{"<wbr>".join(parts)}</p>'


def _shown(count: int, marked: Mapping[int, str]) -> list[int]:
    if count <= _TOKENS:
        return list(range(count))
    near = {at for position in marked for at in range(position - _AROUND, position + _AROUND + 1) if 0 <= at < count}
    return sorted(near | set(range(_HEAD)))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    parser.add_render_rule("link_open", lambda self, tokens, index, options, env: '<span class="link">')
    parser.add_render_rule("link_close", _address)
    parser.add_render_rule("heading_open", lambda self, tokens, index, options, env: f"<{_deeper(tokens[index].tag)}>")
    parser.add_render_rule(
        "heading_close", lambda self, tokens, index, options, env: f"</{_deeper(tokens[index].tag)}>"
    )
    parser.add_render_rule("image", lambda self, tokens, index, options, env: escape(tokens[index].content))
    return parser


def _deeper(tag: str) -> str:
    """The first heading is that of the report."""
    return f"h{min(int(tag[1]) + 1, 6)}"


def _address(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    """The address of a link, behind its text: that of the nearest opening before it, since links do not nest."""
    opened = next(token for token in reversed(tokens[:index]) if token.type == "link_open")
    href = str(opened.attrs.get("href", ""))
    told = f" ({escape(href)})" if href.startswith(("http:", "https:", "mailto:")) else ""
    return f"</span>{told}"
