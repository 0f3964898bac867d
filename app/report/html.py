"""A document as one HTML file that needs nothing else: figures stay interactive, and nothing in it leads to a network."""

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pandas as pd
from plotly.offline import get_plotlyjs

from app.report.document import Document, Entry, Run
from app.report.pictures import specification
from app.report.words import inline, lines, literal, literal_lines, rich, strip
from app.text import visible

__all__ = ["html_report"]

_HERE = Path(__file__).parent
_ROWS = 200  # of a table that are printed
_SCRIPT_ENDS = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_POLICY = "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def html_report(document: Document, theme: str = "light", *, paper: str | None = None, width: int | None = None) -> str:
    """The whole report as HTML; write it as UTF-8.

    Its scripts are plotly.js and a short one of this folder, both allowed by their hash alone; no address is ever asked.
    For printing, ``paper`` is a page size of CSS, ``width`` that of a figure in pixels, and everything stands open.
    """
    own = (_HERE / "report.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    policy = _POLICY.format(" ".join(f"'sha256-{_hash(script)}'" for script in (plotly, own)))
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    page = "" if paper is None else f"@page {{ size: {paper} }}"
    wide = "" if width is None else f' data-width="{width}"'
    figures = [specification(entry.fig, theme) for entry in document.entries if entry.fig is not None]
    return "".join((
        f'<!doctype html><html lang="en" data-theme="{"dark" if theme == "dark" else "light"}"{wide}>',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">',
        f"<title>{literal(document.title)}</title><style>{style}{page}</style></head><body>",
        *_body(document, printed=width is not None),
        f'<script type="application/json" id="figures">{json.dumps(figures).translate(_SCRIPT_ENDS)}</script>',
        f"<script>{plotly}</script><script>{own}</script></body></html>\n",
    ))  # fmt: skip


def _body(document: Document, *, printed: bool) -> Iterator[str]:
    opened = " open" if printed else ""
    entries = document.entries
    models = ", ".join(dict.fromkeys(literal(run.model) for run in document.runs)) or "no run"
    yield f"<header><h1>{literal(document.title)}</h1>"
    yield f'<p class="soft">{_many(len(entries), "item")} · {_many(len(document.runs), "run")} · {models}</p></header>'
    if document.notes.strip():
        yield f'<section class="notes">{rich(document.notes)}</section>'
    if len(entries) > 3:
        names = (f'<a href="#item-{n}"><b>{n}</b><span>{inline(e.title)}</span></a>' for n, e in enumerate(entries, 1))
        yield f"<nav>{''.join(names)}</nav>"
    yield '<noscript><p class="gap">A script in this file draws its figures; scripts are switched off here.</p></noscript>'
    figure, told, runs = count(), dict[str, int](), {run.run_id: run for run in document.runs}
    for number, entry in enumerate(entries, 1):
        if entry.run_id in runs:
            yield _text(runs.pop(entry.run_id), entries)
        yield f'<article id="item-{number}"><div class="whole"><h2><b>{number}</b>{inline(entry.title)}</h2>'
        if entry.question:
            yield f'<p class="question">{inline(entry.question)}</p>'
        yield from _shown(entry, figure)
        yield "</div>"
        yield from _words(entry, number, told, opened)
        yield "</article>"
    yield from _provenance(document, opened)


def _shown(entry: Entry, figure: "count[int]") -> Iterator[str]:
    caption = f"<figcaption>{lines(entry.caption)}</figcaption>" if entry.caption.strip() else ""
    if entry.table is not None:
        if query := entry.params.get("query"):
            yield f"<pre>{literal_lines(str(query))}</pre>"
        yield f"<figure>{_table(entry.table)}{caption}</figure>"
    elif entry.fig is not None:
        height = int(entry.fig.layout.height or 420)
        box = f'<div class="plot" data-figure="{next(figure)}" style="height:{height}px"></div>'
        yield f"<figure>{box}{caption}</figure>"
    else:
        yield f'<figure><p class="gap">{inline(entry.gap or "")}</p>{caption}</figure>'


def _words(entry: Entry, number: int, told: dict[str, int], opened: str) -> Iterator[str]:
    """What stands below a figure. How a panel is read is told once."""
    if entry.note:
        yield f'<div class="note">{rich(entry.note)}</div>'
    if entry.settings:
        said = "".join(
            f"<span>{literal(name)} <b>{literal(value)}</b></span>" for name, value in entry.settings.items()
        )
        yield f'<p class="settings">{said}</p>'
    if not entry.how:
        return
    before = told.setdefault(entry.how, number)
    if before == number:
        yield f"<details{opened}><summary>How to read it / when not to trust it</summary><div>{rich(entry.how)}</div></details>"
    else:
        yield f'<p class="settings">How to read it: see item {before}.</p>'


def _text(run: Run, entries: tuple[Entry, ...]) -> str:
    """The text of a run, with the tokens that its items select."""
    marked: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        if entry.run_id == run.run_id and entry.fig is not None:
            at = entry.selection.position
            marked[at] = f"{marked[at]}, {number}" if at in marked else f"selected in item {number}"
    told = f"The text of run {literal(run.run_id[:8])}, {_many(run.n_tokens, 'token')}; what an item selects is framed."
    return f'<section class="text"><span class="soft">{told}</span>{strip(run.tokens, marked)}</section>'


def _table(table: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    classes = [' class="number"' if one else "" for one in numeric]
    head = "".join(f"<th{kind}>{literal(str(name))}</th>" for name, kind in zip(table.columns, classes, strict=True))
    rows = []
    for row in table.head(_ROWS).itertuples(index=False):
        cells = "".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(row, classes, strict=True))
        rows.append(f"<tr>{cells}</tr>")
    rest = len(table) - len(rows)
    more = f'<p class="soft">{_many(rest, "more row")} are in the session.</p>' if rest > 0 else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{more}'


def _cell(value: object) -> str:
    if isinstance(value, str):
        return literal(visible(value)) if value else ""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.6g}"
    return "" if value is None or value is pd.NA else literal(str(value))


def _provenance(document: Document, opened: str) -> Iterator[str]:
    yield "<article><h2>Where the numbers come from</h2>"
    for run in document.runs:
        facts = {
            "run": run.run_id, "model": run.model, "weights": f"{run.weights}, fingerprint {run.fingerprint}",
            "computed": f"{run.dtype} on {run.device}" + ("" if run.created is None else f", {run.created:%Y-%m-%d %H:%M} UTC"),
            "text": f"{_many(run.n_tokens, 'token')}, headline numbers of mask {run.mask}",
            "seeds": ", ".join(f"{name} {value}" for name, value in run.seeds.items()),
            "versions": _versions(run),
        }  # fmt: skip
        yield "<dl>"
        yield "".join(f"<dt>{name}</dt><dd>{literal(value)}</dd>" for name, value in facts.items() if value)
        yield "</dl>"
        if run.notes:
            yield f'<ul class="soft">{"".join(f"<li>{literal(note)}</li>" for note in run.notes)}</ul>'
        yield f"<details{opened}><summary>The exact request</summary><pre>{literal(run.request)}</pre></details>"
    made = ", ".join(f"{literal(name)} {literal(number)}" for name, number in document.made_with.items())
    yield f'<p class="versions">Drawn by Eigenscope from stored runs, with {made}.</p></article>'


def _versions(run: Run) -> str:
    return ", ".join(f"{name} {number}" for name, number in run.versions.items())


def _many(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


@cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
