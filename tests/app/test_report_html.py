"""The HTML of a report as text: whole, closed to the network, literal. What a browser makes of it: tests/browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from app.report.html import html_report
from app.report.words import inline, rich, strip
from tests.app.fakes import HOSTILE, TEXT
from tests.app.test_report_document import EVERYTHING, QUERY, WORDS, Kept, document, serving

NOTES = f"""# Found

It is **{WORDS}** and [the paper](https://example.com/a"b), <https://example.com>, ![x](https://example.com/x.png)

<img src=x onerror=alert(1)> <script>alert(2)</script>

- one
- `code`

[x](javascript:alert(1)) [y](data:text/html,x)
"""


class Read(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.tags.append(("/script", {}))


@pytest.fixture(scope="module")
def page() -> str:
    services = serving(HOSTILE + TEXT * 4)
    try:
        return html_report(document(services, *EVERYTHING, notes=NOTES))
    finally:
        services.close()


@pytest.fixture(scope="module")
def read(page: str) -> Read:
    reader = Read()
    reader.feed(page)
    return reader


def test_nothing_in_it_leads_anywhere(read: Read) -> None:
    assert {tag for tag, _ in read.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "section", "nav", "a", "b", "br", "span",
        "article", "div", "figure", "figcaption", "details", "summary", "strong", "em", "ul", "ol", "li", "code", "pre", "table",
        "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "noscript", "wbr", "script", "/script",
    }  # fmt: skip
    for tag, given in read.tags:
        assert not {"src", "srcset", "action", "formaction", "data", "poster", "onclick", "onerror", "onload"} & set(
            given
        )
        assert given.get("href", "#").startswith("#"), tag


def test_the_policy_allows_its_own_scripts_and_no_others(read: Read) -> None:
    [policy] = [given["content"] for _, given in read.tags if given.get("http-equiv") == "Content-Security-Policy"]
    data, *code = read.scripts
    assert len(code) == 2
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in code]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert len(json.loads(data)) == 3


def test_words_of_people_and_models_stay_words(page: str) -> None:
    body = page[: page.index('<script type="application/json"')]
    assert "<script" not in body
    assert "onerror=alert(1)&gt;" in body
    assert f"<title>{WORDS.replace('<', '&lt;').replace('>', '&gt;')}</title>" in body
    for shown in ("&lt;script&gt;alert(1)&lt;/script&gt;", "\\u202ertl", "=1+1", "\\xe2", ":red[hi]"):
        assert shown in body
    assert "\u202e" not in page
    assert 'href="javascript' not in body


def test_data_cannot_end_its_script() -> None:
    services = serving(("</script><script>alert(1)</script>", "\u2028", "<!--", "]]>") * 10)
    try:
        page = html_report(document(services, Kept("lens-map")))
    finally:
        services.close()
    start = page.index('id="figures">') + len('id="figures">')
    data = page[start : page.index("</script>", start)]
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data) == [] or json.loads(data)[0]["data"]


def test_each_item_has_its_settings_and_how_it_is_read_once(page: str) -> None:
    assert page.count('<p class="settings"><span>model <b>tiny</b></span>') == 3
    assert page.count("<summary>How to read it / when not to trust it</summary>") == 3
    assert "<br>lines</figcaption>" in page
    assert page.count('class="strip"') == 1
    assert 'title="4: selected in item 1, 2, 3" class="marked"' in page
    assert page.count("<summary>The exact request</summary>") == 1
    assert '<td class="number">2</td><td></td>' in page


def test_the_same_session_gives_the_same_file(page: str) -> None:
    services = serving(HOSTILE + TEXT * 4)
    try:
        assert html_report(document(services, *EVERYTHING, notes=NOTES)) == page
    finally:
        services.close()


def test_a_long_table_is_cut_and_says_so() -> None:
    services = serving(TEXT)
    rows = [[number, "x"] for number in range(1000)]
    try:
        page = html_report(document(services, Kept("sql", {**QUERY.params, "rows": rows}, {}, "", None)))
    finally:
        services.close()
    assert page.count("<tr>") == 201
    assert "800 more rows are in the session." in page


def test_markdown_of_people_is_safe() -> None:
    made = rich(NOTES)
    assert "<h2>Found</h2>" in made
    assert "<li>one</li>" in made
    assert "the paper</span> (https://example.com/a%22b)" in made
    assert "<img" not in made
    assert "<a" not in made
    assert "javascript:alert(1)" in made  # as the text it is: no link was made of it
    assert inline("**a** \\*b\\* <i>") == "<strong>a</strong> *b* &lt;i&gt;"
    assert rich(">" * 5000)
    assert rich("[" * 2000)


def test_a_long_text_is_cut_around_what_is_marked() -> None:
    tokens = [f" w{number}" for number in range(3000)]
    made = strip(tokens, {2000: "selected in item 1"})
    assert made.count("<span title") == 512 + 129
    assert " … 1,424 tokens … " in made
    assert " … 935 tokens</span>" in made
    assert 'title="2000: selected in item 1" class="marked">·w2000<' in made
