"""A report in a browser: from a disk, without network, interactive, literal; and as it is printed."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, Page, Route

from app.figures.theme import base
from app.report import pdf
from app.report.document import Document
from app.report.html import html_report
from app.report.pdf import pdf_report
from app.text import printable
from tests.app.fakes import HOSTILE as SOME
from tests.app.fakes import TEXT
from tests.app.test_report_document import EVERYTHING, WORDS, Kept, document, serving
from tests.app.test_report_html import NOTES
from tests.faults.test_export_hostile import HOSTILE, hostile_document

pytestmark = pytest.mark.browser


def made(*items: Kept) -> Document:
    """A report with a surface at its end."""
    services = serving(SOME + TEXT * 4)
    try:
        drawn = document(services, *items, notes=NOTES)
    finally:
        services.close()
    surface = base(go.Figure(go.Surface(z=np.add.outer(np.arange(9), np.arange(9)))), height=380, legend=False)
    last = replace(drawn.entries[-1], title="A surface", fig=surface, table=None, gap=None, caption="", how="")
    return replace(drawn, entries=(*drawn.entries, last))


@pytest.fixture(scope="module")
def report() -> Document:
    return made(*EVERYTHING, Kept("lens-map"), Kept("sinks-share", run_id="gone"), Kept("sinks-heads"))


Opened = tuple[Page, list[str]]


@pytest.fixture
def opened(browser: Browser, report: Document, tmp_path: Path) -> Iterator[Opened]:
    yield from open_report(browser, report, tmp_path / "report.html")


def open_report(browser: Browser, report: Document, file: Path) -> Iterator[Opened]:
    """The report from a disk; it fails in the end if the console saw an error or it asked for anything but itself."""
    file.write_text(html_report(report), encoding="utf-8", newline="")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    asked: list[str] = []
    told: list[str] = []

    def only_disk(route: Route) -> None:
        asked.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", only_disk)
    page = context.new_page()
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    page.locator(".plot").first.scroll_into_view_if_needed()
    page.locator(".plot .main-svg").first.wait_for()
    yield page, told
    context.close()
    assert told == []
    assert asked == [file.as_uri()]


def test_figures_are_drawn_as_they_come_into_sight(opened: Opened) -> None:
    page, _ = opened
    plots = page.locator(".plot")
    assert plots.count() == 6
    for place in range(plots.count()):
        plots.nth(place).scroll_into_view_if_needed()
        plots.nth(place).locator(".main-svg, canvas").first.wait_for()
    assert page.locator("canvas").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_figure_answers_the_mouse(opened: Opened) -> None:
    page, _ = opened
    heads = page.locator(".plot").nth(1)
    heads.scroll_into_view_if_needed()
    heads.locator(".nsewdrag").first.hover()
    heads.locator(".hoverlayer .hovertext").first.wait_for()
    assert "head" in (heads.locator(".hoverlayer").first.text_content() or "")
    before = heads.locator(".xtick").count()
    area = heads.locator(".nsewdrag").first.bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + 40, area["y"] + 40)
    page.mouse.down()
    page.mouse.move(area["x"] + 150, area["y"] + 120, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "before => document.querySelectorAll('.plot')[1].querySelectorAll('.xtick').length !== before", arg=before
    )


def test_hostile_text_is_read_as_it_is(opened: Opened) -> None:
    page, _ = opened
    assert page.title() == WORDS
    assert page.locator("h1").inner_text() == WORDS
    assert page.locator("figcaption").first.inner_text() == WORDS
    tokens = page.locator(".strip span")
    assert [tokens.nth(n).inner_text() for n in range(8)] == [
        "<script>alert(1)</script>", "$x^2$", ":red[hi]", "**b**", "<|im_start|>", "\\u202ertl", "=1+1", "\\xe2",
    ]  # fmt: skip
    assert page.locator("body script").count() == 3
    reading = page.locator(".plot").nth(3)
    reading.scroll_into_view_if_needed()
    reading.locator(".xtick").first.wait_for()
    labels = reading.locator(".xtick").all_text_contents()
    assert {"<script>ale…", "$x^2$", "**b**"} <= {label.strip("\u2068\u2069") for label in labels}


def test_dozens_of_hostile_strings_are_read_as_they_are(browser: Browser, tmp_path: Path) -> None:
    for page, _ in open_report(browser, hostile_document(), tmp_path / "report.html"):
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        found = page.evaluate("""() => ({
            owned: window.owned ?? null,
            elements: [...new Set([...document.querySelectorAll('body *')].map(one => one.localName))],
            handlers: [...document.querySelectorAll('body *')].flatMap(one => [...one.attributes].map(a => a.name))
                .filter(name => name.startsWith('on')),
            links: [...document.querySelectorAll('[href]')].map(one => one.getAttribute('href'))
                .filter(href => !href.startsWith('#')),
        })""")
        assert found["owned"] is None
        assert not {"iframe", "img", "base", "link", "meta", "object", "embed", "form"} & set(found["elements"])
        assert (found["handlers"], found["links"]) == ([], [])
        flat = " ".join(page.locator("body").inner_text().split())
        for text in HOSTILE:
            assert " ".join(printable(text).split()) in flat, text


def test_the_policy_stops_what_is_not_its_own(opened: Opened) -> None:
    page, told = opened
    stopped = page.evaluate("""() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective), { once: true });
        const script = document.createElement("script");
        script.textContent = "window.owned = true";
        document.body.append(script);
    })""")
    assert stopped.startswith("script-src")
    assert page.evaluate("window.owned") is None
    assert "Content Security Policy" in told.pop()


def test_it_folds_open_and_leads_to_its_items(opened: Opened) -> None:
    page, _ = opened
    how = page.locator("details").first
    assert not how.locator("div").is_visible()
    how.locator("summary").click()
    assert how.locator("div").is_visible()
    page.locator("nav a").nth(3).click()
    assert page.evaluate("location.hash") == "#item-4"


@pytest.mark.parametrize(("paper", "points"), [("A4", (595, 842)), ("Letter", (612, 792))])
def test_it_is_printed_with_all_figures_on_pages_of_the_paper(
    report: Document, tmp_path: Path, paper: str, points: tuple[int, int], chromium: str
) -> None:
    try:
        content = pdf_report(report, paper=paper)
    finally:
        pdf.close()
    assert content.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type /Page\b", content))
    assert pages > 3
    sizes = {
        tuple(round(float(side)) for side in box)
        for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    }
    assert sizes == {points}
    assert re.search(rb"/Subtype /Image\s/Width 2(040|106)\s/Height 1140", content), "the surface, three times its size"
    if shutil.which("pdftotext") is None:
        assert os.environ.get("CI") != "true", "CI must have pdftotext: apt-get install poppler-utils"
        pytest.skip("pdftotext is not installed: the words of the PDF were not read")
    file = tmp_path / "report.pdf"
    file.write_bytes(content)
    text = subprocess.run(["pdftotext", "-layout", str(file), "-"], capture_output=True, text=True, check=True).stdout
    flat = " ".join(text.split())
    assert re.findall(rf"(\d+) ?/ ?{pages}\b", text) == [str(number) for number in range(1, pages + 1)]
    for shown in (WORDS, "How to read it", "When not to trust it", "share of update", "<script>ale…"):
        assert shown in flat
    assert '"token_ids":[0,1,2' in "".join(text.split())
