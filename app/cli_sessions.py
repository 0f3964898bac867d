"""The command line of sessions and bundles: ``sessions list | show``, ``bundle export | import | verify``."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.report.files import check_place, write_whole
from app.text import printable
from cache.session_rules import Item, Session
from probes.errors import BadRequest
from probes.progress import Progress
from probes.runner import RunInfo

__all__ = ["CheckFailed", "add_to", "find_session", "keep_run"]

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]


class CheckFailed(Exception):
    """A check that was asked for did not hold, in one sentence."""


def add_to(
    cli: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the commands; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""
    sessions = typer.Typer(no_args_is_help=True, help="Look at the sessions of the store.")
    bundles = typer.Typer(no_args_is_help=True, help="Carry a session to another machine and check it there.")
    cli.add_typer(sessions, name="sessions")
    cli.add_typer(bundles, name="bundle")

    @sessions.command("list")
    def list_(
        search: Annotated[str, typer.Option(help="Text in title, notes or captions.")] = "", store: StoreOption = None
    ) -> None:
        """The sessions, the last changed first: id, items, when, title."""
        with opened(store) as held:
            for one in held.sessions(search):
                say(f"{one.session_id}\t{one.n_items}\t{one.updated:%Y-%m-%d %H:%M}\t{printable(one.title)}")

    @sessions.command("show")
    def show(session: str, store: StoreOption = None) -> None:
        """A session: its title, notes, and items in order. Give its id or its title."""
        with opened(store) as held:
            found = find_session(held, session)
            say(f"{found.session_id}\t{printable(found.title)}")
            for line in found.notes.splitlines():
                say(f"  {printable(line)}")
            for place, item in enumerate(held.session_items(found.session_id), 1):
                run = "" if item.run_id is None else f"run {item.run_id[:8]}"
                say(f"{place}\t{printable(item.view)}\t{run}\t{printable(item.caption)}")

    @bundles.command("export")
    def export_(
        session: str,
        out: Annotated[Path, typer.Option(help="The file to write, NAME.eigenscope.")],
        store: StoreOption = None,
    ) -> None:
        """Write a session with everything it shows into one file."""
        from app.bundles import export
        from app.services import Services
        from probes.model.shelf import Shelf
        from probes.runner import Runner

        check_place(out)
        with opened(store) as held, watched() as progress:
            progress.step(0.1, "reading what the session shows")
            shelf = Shelf(allow_paths=True)
            found = find_session(held, session)
            content = io.BytesIO()
            export(Services(held, shelf, Runner(held, shelf)), found.session_id, content)
        write_whole(out, content.getvalue())
        say(f"{found.session_id}\t{out.stat().st_size:,} bytes\t{out}")

    @bundles.command("import")
    def import_(file: Path, store: StoreOption = None) -> None:
        """Store a bundle, checked before anything is written; prints the session's id and how many runs were new."""
        from app.bundles import admit

        bundle = _read(file)
        with opened(store) as held:
            made = admit(held, bundle)
        runs = f"{len(made.runs_new)} runs new, {len(made.runs_known)} known"
        say(f"{made.session.session_id}\t{runs}\t{printable(made.session.title)}")
        for original, local in sorted(made.aliased.items()):
            say(f"alias\t{original}\tis stored as\t{local}")

    @bundles.command("verify")
    def verify(
        file: Path, every: Annotated[bool, typer.Option("--all", help="List what was reproduced too.")] = False
    ) -> None:
        """Check a bundle and make its runs again here; status 1 unless every number is reproduced."""
        from app.bundles import check_runs
        from app.verify import RTOL, verify_bundle
        from probes.model.shelf import Shelf

        bundle = _read(file)
        check_runs(bundle)
        say(
            f"whole\t{len(bundle.items)} items, {len(bundle.runs)} runs, {len(bundle.tensors)} tensors; every checksum is right"
        )
        with watched() as progress:
            found = verify_bundle(bundle, Shelf(allow_paths=True), progress)
        for one in found.verdicts:
            if every or one.outcome != "reproduced":
                what = printable(f"{one.table} {one.metric}".strip())
                agreed = f"{one.agreeing} of {one.n}\tlargest {one.largest:.1e}"
                say(f"{one.outcome}\t{one.run_id[:8]}\t{what}\t{agreed}\t{printable(one.reason)}")
        fine = sum(one.outcome == "reproduced" for one in found.verdicts)
        say(f"reproduced\t{fine} of {len(found.verdicts)} kinds of numbers, within {RTOL:g}")
        if not found.reproduced:
            raise CheckFailed("Not every number of the bundle was reproduced here: the lines above name them.")


def find_session(store: Any, named: str) -> Session:
    """The session of an id or a title. Raises BadRequest if there is none, or more than one of that title."""
    found: Session | None = store.session(named)
    if found is not None:
        return found
    titled: list[Session] = [one for one in store.sessions() if one.title == named]
    if len(titled) == 1:
        return titled[0]
    how_many = f"{len(titled)} sessions have" if titled else "No session has"
    raise BadRequest(f"{how_many} the id or title {named[:80]!r}; sessions list names them.")


def keep_run(store: Any, named: str, info: RunInfo) -> str:
    """Add the Overview of a run to a session, made under this title if there is none; its id."""
    try:
        session = find_session(store, named)
    except BadRequest:
        if any(one.title == named for one in store.sessions()):
            raise
        session, _ = store.create_session(named)
    item = Item("overview-layers", {"set": {}, "runs": []}, {"point": 0, "position": 0}, "", info.run_id)
    store.add_item(session.session_id, item)
    return session.session_id


def _read(file: Path) -> Any:
    from cache.bundle_read import read_bundle

    try:
        with file.open("rb") as source:
            return read_bundle(source)
    except OSError as error:
        raise BadRequest(f"The file {file} cannot be read: {(error.strerror or str(error)).lower()}.") from None
