"""Code that people copy: it is Python and shell whatever a model is called, and it makes the same figure."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from app.code import command_line, python, setting
from app.panels import registry
from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.model.edits import parse_edit
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.app.fakes import fake_result, fake_services

REPO = Path(__file__).parents[2]
AWKWARD = (
    "it's", '"', "$(touch owned)", "`id`", "a\nEND_OF_REQUEST\nrm", "'''", '"""', "\\", "\\n", "{0}", "%s", "é\u202e", "#", "",
)  # fmt: skip


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    shelf = Shelf(allow_paths=True)
    with Store.open(tmp_path / "store.duckdb") as store:
        held = Services(store, shelf, Runner(store, shelf))
        yield held
        held.desk.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("it's a $(model)") / "tiny-llama"))


def request_of(services: Services, model: str, *edits: dict) -> RunRequest:
    ids = text_ids(services.shelf.get(model), tiny.TEXT[:40], bos=True)
    calls = (ProbeCall("tokens"), ProbeCall("sinks"))
    return RunRequest(model, ids, calls, edits=tuple(map(parse_edit, edits)))


def made_by(code: str) -> dict:
    """What the Python of a panel makes, run as a person would."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(go.Figure, "show", lambda figure: None)
        exec(compile(code, "copied", "exec"), names)
    names["store"].close()
    names["services"].desk.close()
    return names


def test_the_python_makes_the_same_figure(services: Services, folder: str) -> None:
    result = services.runner.run(request_of(services, folder))
    view = View(services, result, Selection(point=2, position=5, head=1, span=(3, 9)))
    panel, params = registry.panel("sinks-tokens"), {"log": False}
    names = made_by(python(panel, view, params))
    assert names["view"].selection == view.selection
    assert names["drawn"].fig.to_json() == panel.draw(view, params).fig.to_json()


def test_runs_that_a_request_reads_are_made_before_it(services: Services, folder: str) -> None:
    source = services.runner.run(request_of(services, folder)).info.run_id
    edit = {"site": "resid", "layer": 1, "positions": [2], "op": "set", "source": {"run": source}}
    result = services.runner.run(request_of(services, folder, edit))
    view = View(services, result, Selection(point=1, position=2))
    names = made_by(python(registry.panel("sinks-share"), view, {}))
    assert names["result"].info.run_id == result.info.run_id
    assert command_line(registry.panel("sinks-share"), view, {}).count("--before request-2.json") == 1


def test_an_option_that_is_a_run_is_made_too(services: Services, folder: str) -> None:
    result = services.runner.run(request_of(services, folder))
    edit = {"site": "attn_out", "layer": 0, "op": "set", "source": "zero"}
    other = services.runner.run(request_of(services, folder, edit)).info.run_id
    view, panel = View(services, result, Selection(point=1)), registry.panel("compare-sinks-sink-score-d")
    params = {"b": other, "align": "position"}
    code = python(panel, view, params)
    assert ".draw(view, {'b': other_0, 'align': 'position'})" in code
    assert made_by(code)["drawn"].fig.to_json() == panel.draw(view, params).fig.to_json()
    shell = command_line(panel, view, params)
    assert "--set-run b=request-2.json" in shell
    assert f"b={other}" not in shell


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_stays_text_in_both(text: str, tmp_path: Path) -> None:
    held = fake_services(fake_result())
    result = held.open("run0")
    request = replace(result.info.request, model=text or "m")
    info = SimpleNamespace(**{**vars(result.info), "request": request})
    view = View(held, replace(result, info=info), Selection(point=1, position=2))
    panel, params = registry.panel("sinks-cosine"), {"kind": text}
    seen: list[RunRequest] = []
    drawn: list[object] = []
    code = python(panel, view, params)
    stand_in = SimpleNamespace(fig=SimpleNamespace(show=lambda: None), table=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "run", lambda self, asked, progress=None: seen.append(asked) or result)
        patch.setattr(type(panel), "draw", lambda self, view, given: drawn.append(given) or stand_in)
        exec(compile(code, "copied", "exec"), {})
    assert seen == [request]
    assert drawn == [params]
    held.close()

    spy = tmp_path / "python"
    spy.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps([sys.argv, open('request.json').read()]))\n"
    )
    spy.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    shell = ["sh", "-ec", command_line(panel, view, params)]
    done = subprocess.run(shell, cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True)
    arguments, written = json.loads(done.stdout)
    assert RunRequest.from_stored(json.loads(written)) == request
    name, _, value = arguments[arguments.index("--set") + 1].partition("=")
    with contextlib.suppress(ValueError):
        value = json.loads(value)
    assert (name, value) == ("kind", text)
    assert arguments[1:7] == ["-m", "app", "figure", "sinks-cosine", "--request", "request.json"]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("raw", "o=raw"), ("12", 'o="12"'), ("true", 'o="true"'), ("NaN", 'o="NaN"'), (True, "o=true"), (3, "o=3"),
        ([1, "a"], 'o=[1,"a"]'), ("a b", "o=a b"), ("a\nb", 'o="a\\nb"'),
    ],
)  # fmt: skip
def test_a_setting_is_text_unless_it_could_be_something_else(value: object, said: str) -> None:
    assert setting("o", value) == said
    assert shlex.split(shlex.quote(said)) == [said]
