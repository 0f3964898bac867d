"""Hostile strings through the one escaping authority: nothing is markup, nothing is invisible, nothing is lost."""

import csv
import io
import re
import unicodedata
from html import unescape

import pandas as pd
import pytest

from app.text import csv_bytes, csv_cell, html, markdown, plot_label, printable, shortened, visible

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</span><b>",
    "<b>bold</b>",
    "<br>",
    "&lt;i&gt;",
    "&amp;",
    "$x^2$",
    "$$\\frac{a}{b}$$",
    "\\(x\\)",
    ":red[hi]",
    ":blue-background[x]",
    ":material/home:",
    ":smile:",
    ":streamlit:",
    "**b**",
    "_i_",
    "`code`",
    "~~s~~",
    "# title",
    "- item",
    "1. item",
    "> quote",
    "[link](http://x.y)",
    "![i](http://x/y.png)",
    "http://evil.example",
    "www.evil.example",
    "a@b.example",
    "| a | b |",
    "---",
    " -> ",
    "<- x",
    "%{x}",
    "%{customdata[0]}",
    "#000001",
    "#000032",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '=HYPERLINK("http://x")',
    "<|im_start|>",
    "\u202eevil",
    "\u200f",
    "\u200b",
    "\ufeff",
    "\u2066a\u2069",
    "\x00",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\ud800",
    "\udc80\udcff",
    "\u2028",
    "\u00a0",
    "\u00ad",
    "\ue000",
    "مرحبا",
    "שלום",
    "👩‍👩‍👧",
    "a\u0301",
    "\u0301",
    "'; DROP TABLE runs; --",
    "{{7*7}}",
    "${7*7}",
    "%s%n",
    "\\",
    '"',
    "'",
    "C:\\x",
    "⏎",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_surface_holds_no_invisible_character_and_encodes(text: str) -> None:
    shown = (printable(text), visible(text), html(text), plot_label(text), str(csv_cell(text)))
    for result in shown:
        result.encode("utf-8")
        left = [c for c in result if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
        assert set(left) <= {"\u2068", "\u2069"}, f"{text!a} left {left!a}"
    assert visible(text), "a token must have something to click on"


@pytest.mark.parametrize("text", HOSTILE)
def test_html_reads_back_as_what_is_visible(text: str) -> None:
    assert not re.search(r"[<>\"']", html(text))
    assert unescape(html(text)) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plot_label_holds_nothing_plotly_or_streamlit_reads(text: str) -> None:
    label = plot_label(text, 200)
    assert not re.search(r"[<>$]|%\{|#0000", label)
    assert unescape(label).strip("\u2068\u2069") == visible(text)


def test_a_plot_label_is_cut_before_it_is_escaped() -> None:
    assert plot_label("<<<<<<<<", 4) == "&lt;&lt;&lt;…"
    with pytest.raises(ValueError, match="limit must be at least 2, not 1"):
        plot_label("x", 1)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_escapes_every_sign_that_could_be_markup(text: str) -> None:
    escaped = markdown(text)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", escaped)
    assert not re.search(r"[!-/:-@\[-`{-~]", bare), f"an unescaped sign in {escaped!r}"
    literal = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escaped).replace("\u2060", "").replace("\u00a0", " ")
    assert literal == printable(text).replace("\u2060", "")


@pytest.mark.parametrize("text", [":smile:", ":streamlit:", "a -> b", "x -- y", "https://x.y", "www.x.y", "a@b.c"])
def test_markdown_breaks_what_is_replaced_after_parsing(text: str) -> None:
    assert "\u2060" in markdown(text)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "·the"),
        ("   x ", "···x·"),
        ("  ", "··"),
        ("", "∅"),
        ("\n", "⏎"),
        ("a\tb", "a⇥b"),
        ("\r\n", "␍⏎"),
        ("<0xE2><0x9C>", "\\xe2\\x9c"),
        ("<0xE2> x", "<0xE2> x"),
        ("\x00", "\\x00"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("\u202e", "\\u202e"),
        ("\u0301", "◌\u0301"),
        ("<|im_start|>", "<|im_start|>"),
    ],
)
def test_visible(token: str, shown: str) -> None:
    assert visible(token) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_no_csv_cell_is_a_formula(text: str) -> None:
    cell = str(csv_cell(text))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "|", "＝"))


def test_csv_leaves_numbers_and_round_trips_text() -> None:
    frame = pd.DataFrame({"=name": list(HOSTILE[:20]), "value": [-1.5] * 20})
    rows = list(csv.reader(io.StringIO(csv_bytes(frame).decode())))
    assert rows[0] == ["'=name", "value"]
    assert [row[0] for row in rows[1:]] == [csv_cell(text) for text in HOSTILE[:20]]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_a_long_text_is_cut_between_two_words() -> None:
    assert shortened("the mill beneath the lime trees", 24) == "the mill beneath the…"
    assert shortened("the mill", 8) == "the mill"
    assert shortened("a" * 30, 10) == "a" * 9 + "…"
    assert all(len(shortened("one, two three four", limit)) <= limit for limit in range(4, 20))
