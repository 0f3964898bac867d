"""The command ``sae check``: the quality of an installed SAE on text, measured, stored and written as JSON."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.report.files import check_place, write_whole
from probes.progress import Progress

__all__ = ["add_check", "model_for"]


def add_check(
    saes: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the command; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("check")
    def check(
        sae: Annotated[str, typer.Argument(help="An installed SAE, or auto.")],
        json_out: Annotated[
            str, typer.Option("--json", help="Where the result goes: a file, or - for standard output.")
        ],
        text_file: Annotated[list[Path] | None, typer.Option(help="Text it has not seen; repeatable.")] = None,
        tokens: Annotated[int, typer.Option(min=2, help="Tokens of text that are read at most.")] = 20_000,
        loss_tokens: Annotated[int, typer.Option(min=0, help="Tokens the loss is measured on; 0: not at all.")] = 4_096,
        model: Annotated[
            str | None, typer.Option(help="The model it reads; left out: the one it was made for.")
        ] = None,
        store: Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")] = None,
    ) -> None:
        """Measure how well an SAE rebuilds states of text, and how well the model works on what it rebuilds."""
        if json_out != "-":
            check_place(Path(json_out), "--json")
        from probes.model.shelf import Shelf
        from probes.saes.loading import choose, load_sae
        from probes.saes.quality import check_sae, store_quality
        from probes.saes.quality_text import BUILTIN, builtin_text
        from probes.saes.sequences import cut_documents, read_files

        files = read_files(text_file or [])
        with opened(store) as held, watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(sae), progress=progress.part(0.0, 0.2))
            found = load_sae(choose(sae, loaded.facts), loaded.facts)
            text = cut_documents(files, loaded, n_tokens=tokens) if files else builtin_text(loaded, tokens)
            name = ", ".join(one.name for one in files) if files else BUILTIN
            part = progress.part(0.2, 1.0)
            quality = check_sae(loaded, found, text, name=name, loss_tokens=loss_tokens, progress=part)
            store_quality(held, quality)
        rows = [{**row, "value": None if math.isnan(row["value"]) else row["value"]} for row in quality.rows]
        document = json.dumps({"quality": rows}, allow_nan=False, ensure_ascii=False)
        if json_out == "-":
            say(document)
        else:
            write_whole(Path(json_out), (document + "\n").encode())


def model_for(sae: str) -> str:
    """The installed model an SAE names; the embedded one where it names none that is installed."""
    from probes.model.catalog import EMBEDDED, installed
    from probes.saes.folder import installed_saes

    named = next((one.info.model_name for one in installed_saes() if one.name == sae and one.info is not None), "")
    wanted = named.casefold().split("/")[-1]
    return next((name for name in installed() if name.casefold().split("/")[-1] == wanted), EMBEDDED)
