"""A document as a notebook that draws each figure again out of the bundle beside it, without model, network or store."""

import json
import re
from collections.abc import Iterator
from typing import Any

from app.report.document import Document, Entry, Run
from app.report.words import plain
from app.text import printable

__all__ = ["notebook"]

_PUNCTUATION = re.compile(r"[!-&(-+\-./:<-@\[-`{-~]")  # but , ; and '
_OPEN = """\
import sys
from pathlib import Path

REPOSITORY = Path(".")  # where Eigenscope is checked out
BUNDLE = Path({bundle})
sys.path.insert(0, str(REPOSITORY.resolve()))

from app.report.document import entry
from app.services import Services
from cache import Store
from cache.bundle_import import import_bundle
from cache.bundle_read import read_bundle
from probes.model.shelf import Shelf
from probes.runner import Runner

store, shelf = Store.open(":memory:"), Shelf()
with BUNDLE.open("rb") as file:
    session = import_bundle(store, read_bundle(file)).session
services = Services(store, shelf, Runner(store, shelf))
items = store.session_items(session.session_id)
len(items)"""


def notebook(document: Document, bundle_name: str) -> str:
    """The notebook (nbformat 4.5) as JSON. ``bundle_name`` is the file of the session's bundle beside it.

    The same document gives the same text.
    """
    cells = [
        _markdown("about", _about(document, bundle_name)),
        *([_markdown("notes", _notes(document.notes))] if document.notes.strip() else []),
        _code("open", _OPEN.format(bundle=repr(bundle_name))),
    ]
    for place, one in enumerate(document.entries):
        cells.append(_markdown(f"words-{place + 1}", "\n".join(_words(place + 1, one))))
        cells.append(_code(f"item-{place + 1}", f"entry(services, items[{place}]).shown"))
    cells.append(_markdown("provenance", "\n".join(_provenance(document))))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def _about(document: Document, bundle_name: str) -> str:
    return "\n".join((
        f"# {_literal(document.title)}",
        "",
        f"Each cell draws a figure of this session again, out of the bundle `{bundle_name.replace('`', '')}` beside this "
        "notebook: no model runs and nothing is fetched. It needs Eigenscope's repository with requirements.txt and "
        "requirements-dev.txt installed; set `REPOSITORY` below if the notebook lies elsewhere.",
    ))  # fmt: skip


def _notes(notes: str) -> str:
    """Markdown of a person: HTML is shown, not run, pictures are not fetched, and dollars are no formula."""
    return notes.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[").replace("$", "&#36;")


def _words(number: int, one: Entry) -> Iterator[str]:
    yield f"## {number}. {_literal(plain(one.title))}"
    if one.question:
        yield f"\n*{_literal(plain(one.question))}*"
    if one.caption.strip():
        yield "\n" + "  \n".join(_literal(line) for line in one.caption.replace("\r\n", "\n").split("\n"))
    if one.settings:
        yield "\n" + " · ".join(f"{name} **{_literal(value)}**" for name, value in one.settings.items())


def _provenance(document: Document) -> Iterator[str]:
    yield "## Where the numbers come from\n"
    for run in document.runs:
        yield from _run(run)
    yield "\nThis notebook was written with " + ", ".join(f"{n} {v}" for n, v in document.made_with.items()) + "."


def _run(run: Run) -> Iterator[str]:
    made = "" if run.created is None else f", {run.created:%Y-%m-%d %H:%M} UTC"
    weights = f"{_literal(run.weights)}, fingerprint {_literal(run.fingerprint)}"
    yield f"**Run {_literal(run.run_id)}**: {_literal(run.model)}, {weights}; "
    yield f"{_literal(run.dtype)} on {_literal(run.device)}{made}; {run.n_tokens:,} tokens, mask {_literal(run.mask)}; "
    yield ", ".join(f"{_literal(name)} {value}" for name, value in {**run.seeds, **run.versions}.items()) + "."
    yield f"\n```json\n{run.request}\n```\n"


def _literal(text: str) -> str:
    """Raw text on one line, literal in Markdown and to the formulas of notebooks: every sign that could mean something is
    written by its number."""
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", printable(text))


def _markdown(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(name: str, source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "id": name, "metadata": {}, "outputs": [], "source": lines}
