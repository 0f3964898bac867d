"""The commands ``sae fetch`` and ``sae add``: an SAE of the hub, or of a folder, checked whole and installed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.text import printable
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.saes.folder import SAEInfo

__all__ = ["add_shelf"]


def add_shelf(
    saes: typer.Typer, watched: Callable[[], AbstractContextManager[Progress]], say: Callable[[str], None]
) -> None:
    """Register the commands; ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("fetch")
    def fetch(
        asked: Annotated[
            str, typer.Argument(metavar="RELEASE/SAE_ID", help="As sae-lens lists it, or org/repo/folder.")
        ],
    ) -> None:
        """Fetch an SAE of the hub, check every weight, and install it."""
        from probes.saes.hub import fetch_sae

        with watched() as progress:
            info = fetch_sae(asked, progress)
        say(_told(info))

    @saes.command("add")
    def add(
        folder: Annotated[Path, typer.Argument(help="A folder in SAELens' or sparsify's format.")],
        name: Annotated[str | None, typer.Option(help="Its name here; the folder's if left out.")] = None,
    ) -> None:
        """Install the SAE of a folder: configuration, weights and card are copied once every weight was checked."""
        from probes.saes.install import add_folder

        say(_told(add_folder(folder, name)))


def _told(info: "SAEInfo") -> str:
    made_for = printable(info.model_name) or "unnamed model"
    line = f"{info.name}\t{info.architecture}\t{info.d_sae} latents\t{info.hook_name}\t{made_for}"
    return line if info.unreadable is None else f"{line}\n{info.unreadable}"
