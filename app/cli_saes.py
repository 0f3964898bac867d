"""The command line of SAEs: ``sae list | index``, and what the files beside this one add to it."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_sae_check import add_check, model_for
from app.cli_sae_compare import add_compare
from app.cli_sae_label import add_label
from app.cli_sae_shelf import add_shelf
from app.cli_sae_train import add_train
from app.report.files import check_place, write_whole
from app.text import json_rows, printable
from probes.progress import Progress

__all__ = ["add_to", "take_in_indexes"]

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]
_SHOWN = (
    "sae", "content", "fingerprint", "model", "layer", "corpus", "n_sequences", "context", "n_tokens", "n_left_out", "seed",
)  # fmt: skip


def add_to(
    cli: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the commands; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""
    saes = typer.Typer(no_args_is_help=True, help="Look at sparse autoencoders, and index and check them.")
    cli.add_typer(saes, name="sae")
    add_check(saes, opened, watched, say)
    add_label(saes, opened, watched, say)
    add_shelf(saes, watched, say)
    add_compare(saes, watched, say)
    add_train(saes, watched, say)

    @saes.command("list")
    def list_(store: StoreOption = None) -> None:
        """The installed SAEs: name, kind, latents, where it reads, its model, and the tokens it was indexed on."""
        from probes.saes.folder import content_digest, installed_saes

        with opened(store) as held:
            for found in installed_saes():
                if found.info is None:
                    say(f"{printable(found.name)}\tcannot be used\t{printable(str(found.problem))}")
                    continue
                info, index = found.info, held.sae_index(content_digest(found.folder))
                indexed = "not indexed" if index is None else f"indexed on {index['n_tokens']:,} tokens"
                indexed = info.unreadable or indexed
                cells = (
                    info.name,
                    info.architecture,
                    f"{info.d_sae} latents",
                    info.hook_name,
                    info.model_name,
                    indexed,
                )
                say("\t".join(map(printable, cells)))

    @saes.command("index")
    def index(
        sae: Annotated[str, typer.Argument(help="An installed SAE, or auto.")],
        text_file: Annotated[
            list[Path] | None,
            typer.Option(help="Text to index; repeatable. Left out: the shipped SAE's corpus, fetched if need be."),
        ] = None,
        tokens: Annotated[int, typer.Option(min=16, max=10_000_000, help="Tokens that are read at most.")] = 200_000,
        context: Annotated[int, typer.Option(help="Tokens that are read together.")] = 128,
        seed: Annotated[int, typer.Option(min=0, help="Which sequences and examples are drawn.")] = 0,
        model: Annotated[
            str | None, typer.Option(help="The model it reads; left out: the one it was made for.")
        ] = None,
        plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
        export: Annotated[
            bool, typer.Option("--export", help="Write the index into the SAE's folder as well.")
        ] = False,
        json_out: Annotated[str | None, typer.Option("--json", help="Where the latents go: a file, or -.")] = None,
        store: StoreOption = None,
    ) -> None:
        """Read text with an SAE and store which tokens each latent fires on, how often and how strongly."""
        if json_out not in (None, "-"):
            check_place(Path(str(json_out)), "--json")
        from analysis.latent_index import IndexRules
        from probes.model.shelf import Shelf
        from probes.saes.index import index_sae, plan_index, store_index
        from probes.saes.index_text import corpus_text
        from probes.saes.loading import choose, load_sae
        from probes.saes.sequences import cut_documents, read_files
        from probes.saes.shipped_index import export_index

        files = read_files(text_file or [])
        rules = IndexRules(seed=seed)
        with opened(store) as held, watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(sae), progress=progress.part(0.0, 0.05))
            chosen = load_sae(choose(sae, loaded.facts), loaded.facts)
            progress.step(0.05, "reading the text")
            text = None if files else corpus_text()
            named = ", ".join(one.name for one in files) if text is None else text.says
            sequences = cut_documents(
                files if text is None else text.documents, loaded, n_tokens=tokens, context=context, seed=seed
            )
            progress.step(0.08, "reading a sample")
            planned = plan_index(loaded, chosen, sequences, rules)
            if plan:
                _tell(json_out or "-", {"plan": dataclasses.asdict(planned)}, say)
                return
            if json_out != "-":
                say(
                    f"plan\t{planned.n_tokens:,} tokens\tabout {planned.seconds:,.0f} s\t"
                    f"{planned.memory_bytes >> 20:,} MB of memory\t{planned.store_bytes >> 20:,} MB in the store"
                )
            made = index_sae(loaded, chosen, sequences, named, rules, progress.part(0.1, 0.95))
            progress.step(0.95, "writing it to the store")
            key = store_index(held, made)
            if export:
                export_index(held, key, chosen.info.folder, {} if text is None else text.licences)
            latents = held.sae_table(key, "sae_latents")
        row = made.row
        if json_out is not None:
            shown = {"index_id": key, **{name: row[name] for name in _SHOWN}}
            _tell(json_out, {"index": shown, "sae_latents": _rows(latents)}, say)
        if json_out != "-":
            fired = int((latents["n_fired"] > 0).sum())
            say(f"{key}\t{row['n_tokens']:,} tokens\t{fired:,} of {len(latents):,} latents fired\t{printable(named)}")


def take_in_indexes(store: Any) -> list[str]:
    """Bring the indexes that come with shipped SAEs into the store; one line of each SAE that has one."""
    from probes.saes.config import SAEFormatError
    from probes.saes.folder import installed_saes
    from probes.saes.shipped_index import import_shipped_index

    lines = []
    for found in installed_saes():
        if found.info is None or not found.info.shipped:
            continue
        try:
            key = import_shipped_index(store, found.folder)
        except SAEFormatError as error:
            lines.append(f"not taken in\t{printable(str(error))}")
        else:
            lines += [] if key is None else [f"{key}\tindex of {printable(found.name)}"]
    return lines


def _tell(where: str, document: dict[str, Any], say: Callable[[str], None]) -> None:
    text = json.dumps(document, allow_nan=False, ensure_ascii=False)
    if where == "-":
        say(text)
    else:
        write_whole(Path(where), (text + "\n").encode())


def _rows(frame: Any) -> list[dict[str, Any]]:
    """Rows as plain values; lists are lists, what is missing is null."""
    return json_rows(frame.assign(histogram=[counts.tolist() for counts in frame["histogram"]]))
