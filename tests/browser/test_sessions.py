"""A session is kept, shared, survives a restart, travels as a bundle to an empty home, and only its owner changes it."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import READY
from tests.serve import furnish, start_app

pytestmark = pytest.mark.browser

PANELS = {"sinks": ("sinks-heads", "sinks-attention"), "lens": ("lens-map",)}
TITLE, NOTES, CAPTION = (
    "A river <b>of</b> $x^2$",
    "# Found\n<script>alert(1)</script> *well*",
    "The heads of **block 17**",
)


@pytest.fixture
def context_of(browser: Browser) -> Iterator[list[BrowserContext]]:
    made: list[BrowserContext] = []
    yield made
    for one in made:
        one.close()


def fresh(browser: Browser, made: list[BrowserContext]) -> Page:
    made.append(browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True))
    return made[-1].new_page()


def keep(page: Page, address: str, query: str) -> None:
    """Keep three panels of two pages, one of them drawn from an answer beside the run."""
    for name, panels in PANELS.items():
        page.goto(f"{address}/{name}?{query}")
        page.locator(".strip .token").first.wait_for(timeout=READY)
        for panel in panels:
            page.locator(f".st-key-plot-{panel} .nsewdrag").first.wait_for(timeout=READY)
            page.locator(f".st-key-panel-{panel} button[data-do=add]").click()
            expect(page.get_by_text("Kept in the session").first).to_be_visible(timeout=READY)
            expect(page.get_by_text("Kept in the session").first).to_be_hidden(timeout=READY)


def to_sessions(page: Page) -> None:
    page.get_by_role("link", name="Sessions", exact=True).click()
    page.locator(".st-key-item-2 .nsewdrag").first.wait_for(timeout=READY)


def numbers(page: Page, folder: Path) -> list[list[bytes]]:
    """The rows of the CSV of every item, in one order."""
    found = []
    for place in range(3):
        button = page.locator(f".st-key-item-{place} button[data-do=csv]")
        with page.expect_download(timeout=READY) as saved:
            button.click()
        saved.value.save_as(folder / f"{place}.csv")
        found.append(sorted((folder / f"{place}.csv").read_bytes().splitlines()))
    return found


def link_of(page: Page, part: str) -> str:
    page.get_by_text("Share: links, bundle, reports").click()
    code = page.locator("[data-testid=stCode]", has_text=f"?{part}=").first
    expect(code).to_be_visible(timeout=READY)
    return str(code.inner_text()).strip()


def test_kept_shared_restarted_and_carried_to_an_empty_home(
    browser: Browser, context_of: list[BrowserContext], tmp_path: Path, embedded_folder: Path
) -> None:
    home = furnish(tmp_path / "home", embedded_folder)
    process, address = start_app(home)
    page = fresh(browser, context_of)
    page.goto(address)
    page.wait_for_url(re.compile("run="), timeout=READY)
    run = parse_qs(urlparse(page.url).query)["run"][0]
    keep(page, address, f"run={run}&point=18&pos=41&head=3")
    to_sessions(page)
    page.get_by_label("Title").fill(TITLE)
    page.get_by_label("Title").press("Enter")
    page.get_by_label("Notes, in Markdown (saved by themselves)").fill(NOTES)
    page.get_by_label("Notes, in Markdown (saved by themselves)").press("Control+Enter")
    expect(page.locator(".st-key-session-notes h1")).to_have_text("Found", timeout=READY)
    page.locator(".st-key-item-0").get_by_label("Caption").fill(CAPTION)
    page.locator(".st-key-item-0").get_by_label("Caption").press("Control+Enter")
    before = numbers(page, tmp_path)
    shared, owned = link_of(page, "session"), ""
    owned = str(page.locator("[data-testid=stCode]", has_text="?edit=").first.inner_text()).strip()
    page.get_by_role("button", name="Bundle", exact=True).click()
    with page.expect_download(timeout=READY) as saved:
        page.get_by_role("button", name=re.compile(r"Save .*\.eigenscope")).click(timeout=READY)
    saved.value.save_as(tmp_path / "first.eigenscope")
    process.terminate()
    assert process.wait(20) is not None

    process, again = start_app(home)
    reader = fresh(browser, context_of)
    reader.goto(shared.replace(address, again))
    reader.locator(".st-key-item-2 .nsewdrag").first.wait_for(timeout=READY)
    expect(reader.get_by_role("heading", name=TITLE)).to_be_visible()
    expect(reader.get_by_text("<script>alert(1)</script>")).to_be_visible()
    expect(reader.get_by_text("The heads of **block 17**")).to_be_visible()
    assert numbers(reader, tmp_path) == before, "the same numbers after a restart"
    for button in ("Delete", "Remove"):
        assert reader.get_by_role("button", name=button, exact=True).count() == 0, "a reader changes nothing"
    assert reader.get_by_role("textbox", name="Title").count() == 0
    reader.get_by_role("button", name="Open there").first.click()
    reader.wait_for_url(re.compile("/sinks"), timeout=READY)
    expect(reader.get_by_text("no forward pass")).to_be_visible(timeout=READY)
    assert parse_qs(urlparse(reader.url).query)["head"] == ["3"]
    writer = fresh(browser, context_of)
    writer.goto(owned.replace(address, again))
    expect(writer.get_by_role("textbox", name="Title")).to_have_value(TITLE, timeout=READY)
    unknown = fresh(browser, context_of)
    unknown.goto(f"{again}/?session={'0' * 32}")
    expect(unknown.get_by_text("is not known to this store")).to_be_visible(timeout=READY)
    writer.get_by_role("button", name="Delete", exact=True).click()
    expect(writer.get_by_role("button", name="Undo")).to_be_visible(timeout=READY)
    unknown.goto(shared.replace(address, again))
    expect(unknown.get_by_text("was deleted by its owner")).to_be_visible(timeout=READY)
    process.terminate()
    process.wait(20)

    empty = tmp_path / "empty"
    empty.mkdir()
    process, elsewhere = start_app(empty)
    other = fresh(browser, context_of)
    other.goto(f"{elsewhere}/sessions")
    other.locator("input[type=file]").set_input_files(tmp_path / "first.eigenscope", timeout=READY)
    other.locator(".st-key-item-2 .nsewdrag").first.wait_for(timeout=READY)
    assert numbers(other, tmp_path) == before, "the same numbers without the model"
    other.get_by_text("Share: links, bundle, reports").click()
    other.get_by_role("button", name="Bundle", exact=True).click()
    with other.expect_download(timeout=READY) as saved:
        other.get_by_role("button", name=re.compile(r"Save .*\.eigenscope")).click(timeout=READY)
    saved.value.save_as(tmp_path / "second.eigenscope")
    assert (tmp_path / "first.eigenscope").read_bytes() == (tmp_path / "second.eigenscope").read_bytes()
    process.terminate()
    process.wait(20)


def test_two_people_on_one_server_do_not_meet(
    browser: Browser, context_of: list[BrowserContext], address: str, example: str
) -> None:
    one, two = fresh(browser, context_of), fresh(browser, context_of)
    for person, place in ((one, "point=18&pos=41"), (two, "point=5&pos=7")):
        person.goto(f"{address}/sinks?run={example}&{place}")
        person.locator(".st-key-plot-sinks-share .nsewdrag").first.wait_for(timeout=READY)
    one.locator(".strip .token").nth(60).click()
    one.wait_for_url(re.compile("pos=60"))
    two.keyboard.press("ArrowRight")
    two.wait_for_url(re.compile("point=5&pos=8"))
    assert "pos=60" in one.url
    one.locator(".st-key-panel-sinks-share button[data-do=add]").click()
    expect(one.get_by_text("Kept in the session").first).to_be_visible(timeout=READY)
    two.locator(".st-key-panel-sinks-share button[data-do=add]").click()
    expect(two.get_by_text("(1 item)")).to_be_visible(timeout=READY)
