"""``probes.explore`` on a model in memory, and the notebook that shows it."""

import os
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from probes import explore
from probes.errors import BadRequest
from tests import tiny

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def test_a_model_in_memory_gives_tables_and_tensors() -> None:
    result = explore(
        tiny.module("gpt2"), tiny.tokenizer(), tiny.TEXT, probes=["tokens", ("massive", {})], mask="no_bos"
    )
    assert result.info.forward_passes == 1
    assert {"nll", "resid_norm"} <= set(result.table("token_metrics")["metric"])
    assert result.tensor("resid.2").shape == (len(tiny.TEXT) + 1, 32)
    assert torch.isfinite(result.tensor("resid.2")).all()


def test_a_model_in_memory_takes_edits_as_mappings() -> None:
    edit = {"site": "resid", "layer": 1, "dims": [3], "op": "set", "source": "zero"}
    result = explore(tiny.module("llama"), tiny.tokenizer(), tiny.TEXT, probes=["tokens"], edits=[edit])
    assert (result.tensor("resid.1")[:, 3] == 0).all()
    assert (result.tensor("resid.0")[:, 3] != 0).any()
    assert str(result.info.request.edits[0]) == "resid 1, dim 3: set to zero"


def test_an_unknown_probe_is_named() -> None:
    with pytest.raises(BadRequest, match="nope"):
        explore(tiny.module("llama"), tiny.tokenizer(), tiny.TEXT, probes=["nope"])


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(embedded_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(NOTEBOOK.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines() if line]
    assert len(code) <= 10
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    assert "24926" in shown
