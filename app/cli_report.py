"""The command line of figures and reports: ``figure KEY``, ``report SESSION``."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_sessions import find_session
from app.report.files import check_place, suffix_of, write_whole
from probes.errors import BadRequest
from probes.progress import Progress

__all__ = ["FIGURE_FORMATS", "REPORT_FORMATS", "add_to"]

FIGURE_FORMATS = ("png", "svg", "pdf", "csv", "html")
REPORT_FORMATS = ("html", "pdf", "ipynb")
_MAX_REQUEST = 16 << 20  # bytes

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]
Part = Annotated[int | None, typer.Option(min=0)]


def add_to(
    cli: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the commands; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""

    @cli.command("figure")
    def figure(
        key: Annotated[str, typer.Argument(help="The panel, such as sinks-heads.")],
        out: Annotated[Path, typer.Option(help="The file to write: .png, .svg, .pdf, .csv or .html.")],
        request: Annotated[Path | None, typer.Option(help="A file with a run's exact request.")] = None,
        run: Annotated[str | None, typer.Option(help="The id of a stored run.")] = None,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="option=value, value as JSON or text.")
        ] = None,
        other: Annotated[
            list[str] | None, typer.Option("--set-run", help="option=FILE, for an option that is a run.")
        ] = None,
        before: Annotated[list[Path] | None, typer.Option(help="The request of a run that the request reads.")] = None,
        point: Part = None,
        position: Part = None,
        head: Part = None,
        dim: Part = None,
        latent: Part = None,
        first: Annotated[
            int | None, typer.Option("--from", min=0, help="The first token in sight of a long text.")
        ] = None,
        span: Annotated[str | None, typer.Option(help="A range of tokens, such as 3-9.")] = None,
        theme: Annotated[str, typer.Option(help="light or dark.")] = "light",
        store: StoreOption = None,
    ) -> None:
        """Draw one panel of a run. What is not stored is computed."""
        suffix = suffix_of(out, FIGURE_FORMATS)
        if (request is None) == (run is None):
            raise BadRequest("Give the run by exactly one of --request and --run.")
        if theme not in ("light", "dark"):
            raise BadRequest(f"--theme must be light or dark, not {theme[:40]!r}.")
        from app.panels import registry
        from app.services import Services
        from probes.model.shelf import Shelf
        from probes.runner import Runner

        panel, params = registry.panel(key), _settings(settings or [])
        panel.checked(params)
        asked = None if request is None else _request(request)
        others = {name: _request(Path(file)) for name, file in map(_pair, other or [])}
        first_of_all = [_request(file) for file in before or []]
        parts = {"point": point, "position": position, "head": head, "dimension": dim, "latent": latent, "first": first}
        with opened(store) as held, watched() as progress:
            shelf = Shelf(allow_paths=True)
            services = Services(held, shelf, Runner(held, shelf), computes=True)
            try:
                for one in first_of_all:
                    services.runner.run(one, progress)
                result = _stored(services, str(run)) if asked is None else services.runner.run(asked, progress)
                params |= {name: services.runner.run(one, progress).info.run_id for name, one in others.items()}
                written = _figure(services, result, panel, params, _selection(result, parts, span), suffix, theme)
            finally:
                services.desk.close()
        write_whole(out, written)
        say(f"{key}\t{len(written):,} bytes\t{out}")

    @cli.command("report")
    def report(
        session: Annotated[str, typer.Argument(help="The id or the title of a session.")],
        out: Annotated[Path, typer.Option(help="The file to write.")],
        form: Annotated[
            str | None, typer.Option("--format", help="html, pdf or ipynb; by default as the file ends.")
        ] = None,
        paper: Annotated[str, typer.Option(help="A4 or Letter, for PDF.")] = "A4",
        theme: Annotated[str, typer.Option(help="light or dark, for HTML.")] = "light",
        store: StoreOption = None,
    ) -> None:
        """Write a session as a report; a notebook gets the bundle it reads beside it."""
        if form is not None and form not in REPORT_FORMATS:
            raise BadRequest(f"--format must be one of {', '.join(REPORT_FORMATS)}, not {form[:40]!r}.")
        kind = suffix_of(out, REPORT_FORMATS) if form is None else form
        check_place(out)
        from app.report.pdf import PAPERS

        if paper not in PAPERS:
            raise BadRequest(f"--paper must be one of {', '.join(PAPERS)}, not {paper[:40]!r}.")
        if theme not in ("light", "dark"):
            raise BadRequest(f"--theme must be light or dark, not {theme[:40]!r}.")
        with opened(store) as held, watched() as progress:
            files = _report(held, find_session(held, session), kind, out, paper, theme, progress)
        for path, content in files:
            write_whole(path, content)
            say(f"{session}\t{len(content):,} bytes\t{path}")


def _stored(services: Any, name: str) -> Any:
    """The stored run of an id, or of its beginning where only one run begins so. Raises BadRequest."""
    found = services.open(name)
    if found is not None:
        return found
    begin = [str(one) for one in services.store.runs()["run_id"] if name and str(one).startswith(name)]
    if len(begin) != 1:
        several = f"{len(begin)} runs whose ids begin with" if begin else "no run"
        raise BadRequest(f"The store holds {several} {name[:64]!r}.")
    return services.open(begin[0])


def _figure(
    services: Any, result: Any, panel: Any, params: dict[str, Any], chosen: Any, suffix: str, theme: str
) -> bytes:
    from app.report.document import make_document
    from app.report.html import html_report
    from app.report.pictures import PictureError, picture
    from app.report.words import plain
    from app.text import csv_bytes
    from app.view import View
    from cache.session_rules import Item

    drawn = panel.draw(View(services, result, chosen), params)
    if suffix == "csv":
        table = drawn.table()
        if table is None:
            raise BadRequest(f"The panel {panel.key} has no table here. {plain(drawn.note or '')}".strip())
        return csv_bytes(table)
    if drawn.fig is None:
        raise PictureError(plain(drawn.note or "There is nothing to be drawn here."))
    if suffix == "html":
        item = Item(panel.key, {"set": params, "runs": []}, chosen.as_dict(), "", result.info.run_id)
        return html_report(make_document(plain(drawn.title), "", [item], services), theme).encode()
    return picture(drawn.fig, suffix, theme=theme)


def _report(
    held: Any, session: Any, kind: str, out: Path, paper: str, theme: str, progress: Progress
) -> list[tuple[Path, bytes]]:
    from app.report.document import make_document
    from app.report.html import html_report
    from app.report.pdf import pdf_report
    from app.services import Services
    from probes.model.shelf import Shelf
    from probes.runner import Runner

    shelf = Shelf(allow_paths=True)
    services = Services(held, shelf, Runner(held, shelf))
    try:
        progress.step(0.1, "drawing")
        document = make_document(session.title, session.notes, held.session_items(session.session_id), services)
        progress.step(0.6, "writing")
        if kind == "html":
            return [(out, html_report(document, theme).encode())]
        if kind == "pdf":
            return [(out, pdf_report(document, paper=paper))]
        import io

        from app.bundles import export
        from app.report.notebook import notebook

        bundle, content = out.with_suffix(".eigenscope"), io.BytesIO()
        export(services, session.session_id, content)
        return [(bundle, content.getvalue()), (out, notebook(document, bundle.name).encode())]
    finally:
        services.desk.close()


def _selection(result: Any, parts: dict[str, int | None], span: str | None) -> Any:
    """The selection that the options give. Raises BadRequest for what lies outside the run."""
    from app.code import FLAGS
    from app.selection import clamp
    from app.view import run_bounds

    limits = run_bounds(result)
    given: dict[str, Any] = {name: value for name, value in parts.items() if value is not None}
    for name, value in given.items():
        last = getattr(limits, name)
        if value > last:
            raise BadRequest(f"--{FLAGS[name]} must be from 0 to {last} in this run, not {value}.")
    if span is not None:
        ends = re.fullmatch(r"(\d{1,9})-(\d{1,9})", span, re.ASCII)
        if ends is None or not int(ends[1]) <= int(ends[2]) <= limits.position:
            raise BadRequest(f"--span must be FIRST-LAST between 0 and {limits.position}, not {span[:40]!r}.")
        given["span"] = (int(ends[1]), int(ends[2]))
    return clamp(limits.start(), given, limits)


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    """``option=value`` by option; a value that is not JSON is text."""
    given: dict[str, Any] = {}
    for name, value in map(_pair, settings):
        try:
            given[name] = json.loads(value)
        except (ValueError, RecursionError):
            given[name] = value
    return given


def _pair(setting: str) -> tuple[str, str]:
    name, sign, value = setting.partition("=")
    if not sign or not name:
        raise BadRequest(f"--set and --set-run take option=value, not {setting[:80]!r}.")
    return name, value


def _request(file: Path) -> Any:
    """The request in a file. Raises BadRequest."""
    from probes.request import RunRequest

    try:
        if file.stat().st_size > _MAX_REQUEST:
            raise BadRequest(f"The file {file} is larger than a request can be ({_MAX_REQUEST:,} bytes).")
        return RunRequest.from_stored(json.loads(file.read_bytes()))
    except OSError as error:
        raise BadRequest(f"The file {file} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    except BadRequest:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadRequest(f"The file {file} holds no request; a report and the app's code name the exact one.") from None
