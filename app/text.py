"""The one escaping authority: how text of a model, a prompt or a file is shown, so that it is data everywhere.

Every surface that shows such text uses one of these functions: the token strip and HTML (``visible``, ``html``), plots
(``plot_label``), Markdown of the app (``markdown``) and CSV (``csv_cell``, ``csv_bytes``).
"""

import re
import unicodedata
from html import escape
from typing import Any

import pandas as pd

__all__ = [
    "csv_bytes",
    "csv_cell",
    "html",
    "json_rows",
    "markdown",
    "number",
    "plot_label",
    "printable",
    "shortened",
    "visible",
]

_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")  # how a piece of a character is named by its tokenizer
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "|")  # spreadsheets fold full-width forms
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_JOINER = "\u2060"
# Streamlit replaces these after Markdown is parsed, where a backslash no longer protects them.
_AFTER_PARSING = (
    (re.compile(r":(?=[\w+-]+:)"), f":{_JOINER}"),  # emoji and icon shortcodes
    (re.compile(r"(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)"), lambda m: _JOINER.join(m[0])),  # typographic arrows
    (re.compile(r"(https?:)(?=//)", re.IGNORECASE), rf"\1{_JOINER}"),  # bare links
    (re.compile(r"(www)(?=\.)", re.IGNORECASE), rf"\1{_JOINER}"),
    (re.compile(r"@(?=\w)"), f"@{_JOINER}"),
)


def printable(text: str) -> str:
    """``text`` on one line with every invisible character shown: ``⏎``, ``⇥``, ``\\x00``, ``\\u200f``.

    Bytes that are no UTF-8 (carried as lone surrogates U+DC80..U+DCFF) are shown as ``\\xNN``. The result holds no
    control or format character, no surrogate and no line break, so it can be encoded and reorders nothing beside it.
    """
    return "".join(map(_show, text))


def visible(token: str) -> str:
    """A token as the strip shows it: :func:`printable`, with outer spaces as ``·`` and nothing at all as ``∅``."""
    if _BYTES.fullmatch(token):
        return re.sub(r"<0x(..)>", lambda m: f"\\x{m[1].lower()}", token)
    core = token.strip(" ")
    if not core:
        return "·" * len(token) or "∅"
    before = len(token) - len(token.lstrip(" "))
    after = len(token) - len(token.rstrip(" "))
    combining = "◌" if unicodedata.category(core[0]).startswith("M") else ""
    return "·" * before + combining + printable(core) + "·" * after


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` signs of a text, cut between two words and then with an ellipsis; a longer word is cut in itself."""
    if len(text) <= limit:
        return text
    words = text[:limit].rsplit(" ", 1)[0] if " " in text[1:limit] else text[: limit - 1]
    return f"{words.rstrip(' ,;:')}…"


def plot_label(token: str, limit: int = 24) -> str:
    """A token of at most ``limit`` signs, literal in Plotly, where ``<b>``, ``$x$`` and ``%{x}`` are markup."""
    if limit < 2:
        raise ValueError(f"limit must be at least 2, not {limit}")
    shown = visible(token)
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    isolate = any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in shown)
    label = escape(shown, quote=False).replace("$", "&#36;").replace("%{", "%&#123;")
    # Streamlit replaces "#000001" and its like anywhere in a figure by a colour of its theme.
    label = label.replace("#0000", "&#35;0000")
    return f"\u2068{label}\u2069" if isolate else label


def html(token: str) -> str:
    """A token as HTML text or attribute value."""
    return escape(visible(token), quote=True)


def markdown(text: str) -> str:
    """``text`` literal in ``st.markdown`` and in widget labels: no emphasis, maths, colour, icon, link or HTML in it.

    Where a backslash does not help, an invisible word joiner (U+2060) keeps the app from replacing the text.
    """
    shown = printable(text)
    for pattern, replacement in _AFTER_PARSING:
        shown = pattern.sub(replacement, shown)
    shown = _PUNCTUATION.sub(r"\\\1", shown)
    return re.sub(r"^ +| +$| {2,}", lambda m: "\u00a0" * len(m[0]), shown)


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet reads as a formula: text is made visible, a formula sign at its start is quoted."""
    if not isinstance(value, str):
        return value
    shown = visible(value) if value else ""
    return f"'{shown}" if shown.lstrip("·\u00a0").startswith(_FORMULA) else shown


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV with every text cell and column name passed through :func:`csv_cell`."""
    safe = frame.copy()
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[name] = safe[name].map(csv_cell)
    safe.columns = [str(csv_cell(str(name))) for name in safe.columns]
    text: str = safe.to_csv(index=False, lineterminator="\r\n")
    return text.encode()


def _show(sign: str) -> str:
    named = _NAMED.get(sign)
    if named is not None:
        return named
    category, code = unicodedata.category(sign), ord(sign)
    if category not in _INVISIBLE and not (category == "Zs" and sign != " "):
        return sign
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def number(value: float) -> str:
    """A number in a sentence: whole from a thousand on, four figures below; ``undefined`` where it is missing."""
    if pd.isna(value):
        return "undefined"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain values for JSON; what is missing is None."""
    plain = frame.astype(object)
    rows: list[dict[str, Any]] = plain.where(plain.notna(), None).to_dict("records")
    return rows
