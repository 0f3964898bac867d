"""21: hostile strings as prompt, title, notes, caption, option, label and model name are text in notebooks and pictures.

What a browser makes of them in a report is in tests/browser/test_report.py.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest

from app.figures.theme import base, token_axis
from app.report import pictures
from app.report.document import Document, make_document
from app.report.notebook import notebook
from app.report.pictures import picture
from app.text import plot_label, printable
from tests.app.fakes import fake_result, fake_services
from tests.app.test_report_document import Kept

HOSTILE = (
    "<script>window.owned = 1</script>", "</script><script>window.owned = 1</script>",
    "<img src=x onerror=window.owned=1>", "<svg onload=window.owned=1>", '"><b onmouseover=window.owned=1>',
    "'; window.owned = 1; '", "</title><script>window.owned=1", "</style><script>window.owned=1</script>", "<!--",
    "-->", "<![CDATA[", "]]>", "&lt;b&gt;", "&#60;b&#62;", "<a href=//x.test>x</a>",
    "<a href='javascript:window.owned=1'>x</a>", "[x](javascript:window.owned=1)", "![x](http://x.test/x.png)",
    "http://x.test/", "<http://x.test/>", "$x^2$", "\\(x\\)", "\\[x\\]", "%{x}", "%{customdata}", "{{7*7}}", "${7*7}",
    "`code`", "```", "**b**", "# h", "- l", "1. l", "| a | b |", ":red[hi]", ":material/home:", "<|im_start|>",
    "\u202ertl\u202c", "a\u2028b\u2029c", "\x00\x1b[31m", "\ufeff", "=1+1", "@SUM(A1)",
    "<iframe srcdoc='<script>parent.owned=1</script>'>", "<meta http-equiv=refresh content=0>",
    "<base href=//x.test/>", "<link rel=stylesheet href=//x.test>", "<b>bold</b>",
    "a" * 3000,
)  # fmt: skip


def hostile_document() -> Document:
    """A session in which everything a person or a model can say is hostile."""
    services = fake_services(fake_result(HOSTILE))
    everything = " ".join(HOSTILE)
    result = services.open("run0")
    says = {"model": everything, "weights": HOSTILE[0], "notes": HOSTILE, "versions": {HOSTILE[1]: HOSTILE[2]}}
    info = SimpleNamespace(**{**vars(result.info), **says, "request": replace(result.info.request, model=everything)})
    services.runner.results["run0"] = replace(result, info=info)
    services.store.run = lambda run_id: None
    items = [
        Kept("lens-map", caption="\n".join(HOSTILE)),
        Kept("sinks-heads", {"set": {"metric": everything}}),
        *(Kept(text, {"set": {text: text}}, run_id=text) for text in HOSTILE),
        Kept(
            "sql", {"query": "\n".join(HOSTILE), "columns": ["a"], "rows": [[text] for text in HOSTILE]}, {}, "", None
        ),
    ]
    try:
        return make_document(everything, "\n\n".join(HOSTILE), items, services)
    finally:
        services.close()


@pytest.fixture(scope="module")
def document() -> Document:
    return hostile_document()


def test_more_than_25_strings_are_tried() -> None:
    assert len(HOSTILE) >= 25


def test_a_notebook_holds_them_as_text(document: Document) -> None:
    text = notebook(document, "a.eigenscope")
    read = nbformat.reads(text, 4)
    nbformat.validate(read)
    captions = unescape(read.cells[3].source)
    for one in HOSTILE:
        assert printable(one) in captions, one
    for cell in read.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec")
        elif cell.id not in ("notes", "provenance"):
            assert not re.search(r"[<$]|!\[|\]\(|\\", cell.source), cell.id


def test_a_picture_draws_them_as_text(chromium: str) -> None:
    fig = base(go.Figure(go.Heatmap(z=np.ones((2, len(HOSTILE))))), x=plot_label(HOSTILE[0], 80), legend=False)
    token_axis(fig, HOSTILE)
    try:
        content = picture(fig, "svg", width=2000)
    finally:
        pictures.close()
    tree = ET.fromstring(content)
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert not {"script", "foreignObject", "a", "iframe"} & names
    assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on")]
    drawn = "".join(tree.itertext())
    for text in HOSTILE:
        shown = unescape(plot_label(text, 12)).strip("\u2068\u2069")
        assert shown in drawn, text
