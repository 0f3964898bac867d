"""The Python and the command line that make a panel again, from nothing but a request. No streamlit.

People copy them into shells and notebooks: whatever a model is called or an option says, it stays text there.
"""

import json
import shlex
from collections.abc import Mapping
from itertools import count
from typing import Any

from app.panels.panel import Panel
from app.view import View
from cache import canonical_json
from probes.model.edits import FromRun
from probes.request import RunRequest

__all__ = ["FLAGS", "command_line", "python", "setting"]

FLAGS = {
    "point": "point",
    "position": "position",
    "head": "head",
    "dimension": "dim",
    "latent": "latent",
    "first": "from",
}
"""Parts of a selection that are one number -> their options of ``python -m app figure``."""

_LINE = 96
_END = "END_OF_REQUEST"  # a request is one line of JSON, so no line of it can be this

_PYTHON = """\
import json

from app.panels import registry
from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.model.shelf import Shelf
from probes.request import RunRequest
from probes.runner import Runner

store, shelf = Store.open(":memory:"), Shelf(allow_paths=True)
services = Services(store, shelf, Runner(store, shelf), computes=True)


def run(request: str):
    return services.runner.run(RunRequest.from_stored(json.loads(request)))


{before}result = run{request}
{others}view = View(services, result, Selection({selection}))
drawn = registry.panel({key}).draw(view, {params})
drawn.fig.show()
drawn.table()
"""


def python(panel: Panel, view: View, params: Mapping[str, Any]) -> str:
    """Python that runs the request of a view in a store in memory, and draws the panel with these options."""
    others = _runs(view, params)
    before = _before(view, view.info.request, *others.values())
    made = "".join(
        f"other_{place} = run{_text(request.as_json())}.info.run_id\n" for place, request in enumerate(others.values())
    )
    names = {name: f"other_{place}" for place, name in enumerate(others)}
    options = ", ".join(f"{name!r}: {names.get(name) or repr(_plain(value))}" for name, value in params.items())
    chosen = view.selection.as_dict() | ({} if view.selection.span is None else {"span": view.selection.span})
    return _PYTHON.format(
        before="".join(f"run{_text(request.as_json())}\n" for request in before),
        request=_text(view.info.request.as_json()),
        others=made,
        selection=", ".join(f"{name}={value!r}" for name, value in chosen.items()),
        key=repr(panel.key),
        params=f"{{{options}}}",
    )


def command_line(panel: Panel, view: View, params: Mapping[str, Any]) -> str:
    """Shell text that writes the request into a file and makes the panel of it as a picture."""
    others = _runs(view, params)
    written, asked, place = [("request.json", view.info.request)], ["--request request.json"], count(2)
    for request in _before(view, view.info.request, *others.values()):
        written.append((f"request-{next(place)}.json", request))
        asked.append(f"--before {written[-1][0]}")
    for name, request in others.items():
        written.append((f"request-{next(place)}.json", request))
        asked.append(f"--set-run {shlex.quote(f'{name}={written[-1][0]}')}")
    asked += [f"--set {shlex.quote(setting(name, value))}" for name, value in params.items() if name not in others]
    chosen = view.selection
    numbers = {flag: getattr(chosen, part) for part, flag in FLAGS.items()}
    asked += [" ".join(f"--{flag} {value}" for flag, value in numbers.items() if value is not None)]
    asked += [] if chosen.span is None else [f"--span {chosen.span[0]}-{chosen.span[1]}"]
    asked += [f"--store :memory: --out {panel.key}.svg"]
    files = "".join(f"cat > {name} <<'{_END}'\n{request.as_json()}\n{_END}\n" for name, request in written)
    return f"{files}python -m app figure {panel.key} " + " \\\n    ".join(asked) + "\n"


def setting(name: str, value: Any) -> str:
    """``NAME=VALUE`` as ``--set`` reads it: text as it is, and as JSON where it could be taken for something else."""
    plain = _plain(value)
    if not isinstance(plain, str) or not plain.isprintable() or _is_json(plain):
        return f"{name}={canonical_json(plain)}"
    return f"{name}={plain}"


def _runs(view: View, params: Mapping[str, Any]) -> dict[str, RunRequest]:
    """Options that name another run, by what was asked of it: where it is made again, it may have another id."""
    found = {}
    for name, value in params.items():
        other = view.services.open(value) if isinstance(value, str) and value else None
        if other is not None:
            found[name] = other.info.request
    return found


def _before(view: View, *requests: RunRequest) -> list[RunRequest]:
    """What stored runs were asked that these requests read, themselves before those that read them. Each has the same
    id where it is made again, as long as the versions that are part of it are the same."""
    found: dict[str, RunRequest] = {}
    for request in requests:
        read = [run for call in request.probes for run in getattr(call.full_params(), "runs", ())]
        read += [edit.source.run for edit in request.edits if isinstance(edit.source, FromRun)]
        for run in read:
            other = view.services.open(run)
            if other is not None:
                found |= {one.as_json(): one for one in (*_before(view, other.info.request), other.info.request)}
    return list(found.values())


def _text(text: str) -> str:
    """A Python literal of a long text in parentheses, over several lines."""
    parts = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "(\n" + "".join(f"    {part!r}\n" for part in parts) + ")"


def _plain(value: Any) -> Any:
    return json.loads(canonical_json(value))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
