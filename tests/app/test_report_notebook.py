"""The notebook of a session: valid, the same each time, literal, and it runs with nothing but the bundle beside it."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

from app.bundles import export
from app.report.document import make_document
from app.report.notebook import notebook
from app.services import Services
from cache import Store
from cache.sessions import Item
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.app.fakes import HOSTILE, TEXT
from tests.app.test_report_document import EVERYTHING, QUERY, WORDS, document, serving

REPO = Path(__file__).parents[2]
FIGURE = "application/vnd.plotly.v1+json"


def test_it_is_valid_the_same_each_time_and_literal() -> None:
    notes = "# Mine\n\n<script>alert(1)</script> ![x](https://example.com/x.png) $x$ &lt;"
    made = []
    for _ in range(2):
        services = serving(HOSTILE + TEXT)
        made.append(notebook(document(services, *EVERYTHING, notes=notes), "it's.eigenscope"))
        services.close()
    assert made[0] == made[1]
    read = nbformat.reads(made[0], 4)
    nbformat.validate(read)
    assert read.nbformat_minor == 5
    assert [cell.id for cell in read.cells][:4] == ["about", "notes", "open", "words-1"]
    words = "".join(cell.source for cell in read.cells if cell.cell_type == "markdown")
    for sign in ("<", "![", "$", "**b**"):
        assert sign not in words
    assert "&amp;lt;" in words
    assert 'BUNDLE = Path("it\'s.eigenscope")' in read.cells[2].source
    for cell in read.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec")


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_it_draws_each_figure_again_without_model_network_or_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shelf = tiny.save(tmp_path / "tiny-llama"), Shelf(allow_paths=True)
    with Store.open(tmp_path / "store.duckdb") as store:
        runner = Runner(store, shelf)
        ids = text_ids(shelf.get(str(model)), tiny.TEXT, bos=True)
        run = runner.run(RunRequest(str(model), ids, (ProbeCall("tokens"), ProbeCall("sinks")))).info.run_id
        items = [
            Item(view, {"set": given, "runs": []}, {"point": 2, "position": 3}, WORDS, run)
            for view, given in (("sinks-heads", {}), ("sinks-tokens", {"log": False}), ("latents-map", {}))
        ]
        session, _ = store.create_session(WORDS)
        store.save_session(session.session_id, items=[*items, Item(QUERY.view, QUERY.params, {}, "", None)])
        services = Services(store, shelf, runner)
        made = make_document(WORDS, "", store.session_items(session.session_id), services)
        with (tmp_path / "a.eigenscope").open("w+b") as file:
            export(services, session.session_id, file)
        services.desk.close()
    first = json.loads(made.entries[0].fig.to_json())
    for gone in model.iterdir():
        gone.unlink()
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "EIGENSCOPE_HOME": str(tmp_path / "none"),
        "PYTHONPATH": str(REPO),
    }.items():
        monkeypatch.setenv(name, value)
    book = nbformat.reads(notebook(made, "a.eigenscope"), 4)
    nbclient.NotebookClient(book, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.id: cell.outputs[-1].data for cell in book.cells if cell.cell_type == "code"}
    assert shown["open"]["text/plain"] == "4"
    assert shown["item-1"][FIGURE]["data"] == first["data"]
    assert FIGURE in shown["item-2"]
    assert "text/plain" in shown["item-3"]
    assert FIGURE not in shown["item-3"]
    assert "layer" in shown["item-4"]["text/plain"]
