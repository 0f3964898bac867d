"""Where a command's result goes: into a file, whole or not at all, or to standard output."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.report.files import check_place, write_whole

__all__ = ["JsonOption", "as_json", "check_out", "write_out"]

JsonOption = Annotated[str, typer.Option("--json", help="Where the result goes: a file, or - for standard output.")]


def check_out(where: str, flag: str = "--json") -> None:
    """Raises BadRequest naming ``flag`` where nothing can be written."""
    if where != "-":
        check_place(Path(where), flag)


def as_json(document: Mapping[str, Any]) -> str:
    """One line of JSON; raises ValueError for a number that is not finite."""
    return json.dumps(document, allow_nan=False, ensure_ascii=False)


def write_out(where: str, text: str, say: Callable[[str], None]) -> None:
    """Write a text, which ends with a newline then."""
    if where == "-":
        say(text)
    else:
        write_whole(Path(where), (text + "\n").encode())
