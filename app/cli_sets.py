"""The command line of prompt sets: ``sets list | show | import | remove``."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.report.files import check_place, write_whole
from app.text import printable, shortened
from probes.errors import BadRequest
from probes.prompts.library import all_sets, find_set, import_set, remove_set
from probes.prompts.sets import PromptSet, read_set

__all__ = ["add_to", "set_entry"]

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]
_PREVIEW = 80


def add_to(
    cli: typer.Typer, opened: Callable[[str | None], AbstractContextManager[Any]], say: Callable[[str], None]
) -> None:
    """Register the commands; ``opened`` opens a store, ``say`` prints a line."""
    sets = typer.Typer(no_args_is_help=True, help="Look at prompt sets, and import your own.")
    cli.add_typer(sets, name="sets")

    @sets.command("list")
    def list_(store: StoreOption = None) -> None:
        """The prompt sets: name, prompts, groups, where they come from."""
        with opened(store) as held:
            for one in all_sets(held):
                groups = ", ".join(f"{printable(name)} {count}" for name, count in one.groups.items()) or "no groups"
                say(f"{one.name}\t{len(one.prompts)} prompts\t{groups}\t{printable(one.source)}")

    @sets.command("show")
    def show(
        name: str,
        json_out: Annotated[
            str | None, typer.Option("--json", help="Write the whole set to a file, or - here.")
        ] = None,
        store: StoreOption = None,
    ) -> None:
        """The prompts of a set: id, group, how it begins, answer."""
        if json_out not in (None, "-"):
            check_place(Path(str(json_out)), "--json")
        with opened(store) as held:
            found = find_set(held, name)
        if json_out is not None:
            rows = [prompt.as_row() for prompt in found.prompts]
            text = json.dumps({"prompt_set": set_entry(found), "prompts": rows}, ensure_ascii=False)
            if json_out == "-":
                say(text)
            else:
                write_whole(Path(json_out), (text + "\n").encode())
            return
        for prompt in found.prompts:
            begins = shortened(printable(prompt.shown), _PREVIEW)
            say(f"{prompt.id}\t{prompt.group or ''}\t{begins}\t{printable(prompt.answer or '')}")

    @sets.command("import")
    def import_(
        file: Annotated[Path, typer.Argument(help="JSON lines: id, text or messages, and group, answer, response.")],
        name: Annotated[str | None, typer.Option(help="The set's name; the file's name if left out.")] = None,
        store: StoreOption = None,
    ) -> None:
        """Import a set, all of it or nothing; a broken line is named."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BadRequest(f"The file {file} cannot be read: {(error.strerror or str(error)).lower()}.") from None
        made = read_set(file.stem if name is None else name, content, file.name, file.name)
        with opened(store) as held:
            import_set(held, made)
        say(f"{made.set_id}\t{made.name}\t{len(made.prompts)} prompts")

    @sets.command("remove")
    def remove(name: str, store: StoreOption = None) -> None:
        """Take an imported set out of the store; the runs of its prompts stay."""
        with opened(store) as held:
            remove_set(held, name)
        say(f"removed\t{name}")


def set_entry(one: PromptSet) -> dict[str, Any]:
    """What a document says of a set."""
    return {
        "set_id": one.set_id,
        "name": one.name,
        "source": one.source,
        "n_prompts": len(one.prompts),
        "groups": dict(one.groups),
    }
