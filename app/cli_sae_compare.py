"""The commands ``sae compare`` and ``sae absorption``: two SAEs on one text; letters that latents of words swallow."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from app.cli_json import JsonOption, as_json, check_out, write_out
from app.cli_sae_check import model_for
from probes.progress import Progress

__all__ = ["add_compare"]

ModelOption = Annotated[str | None, typer.Option(help="The model they read; left out: the one it was made for.")]


def add_compare(
    saes: typer.Typer, watched: Callable[[], AbstractContextManager[Progress]], say: Callable[[str], None]
) -> None:
    """Register the commands; ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("compare")
    def compare(
        a: Annotated[str, typer.Argument(help="An installed SAE.")],
        b: Annotated[str, typer.Argument(help="Another of the same model.")],
        text_file: Annotated[list[Path], typer.Option(help="Text both read; repeatable.")],
        json_out: JsonOption,
        tokens: Annotated[int, typer.Option(min=16, help="Tokens of text that are read at most.")] = 20_000,
        model: ModelOption = None,
    ) -> None:
        """Match the latents of two SAEs on one text; compare what the matches write; find latents that split."""
        check_out(json_out)
        from app.sae_compare import comparison_document
        from probes.model.shelf import Shelf
        from probes.saes.compare import compare_saes
        from probes.saes.loading import choose, load_sae
        from probes.saes.sequences import cut_documents, read_files

        files = read_files(text_file)
        with watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(a), progress=progress.part(0.0, 0.1))
            both = [load_sae(choose(name, loaded.facts), loaded.facts) for name in (a, b)]
            sequences = cut_documents(files, loaded, n_tokens=tokens)
            found = compare_saes(loaded, both[0], both[1], sequences, progress.part(0.1, 1.0))
        write_out(json_out, as_json(comparison_document(found, loaded.facts.name)), say)

    @saes.command("absorption")
    def absorption(
        sae: Annotated[str, typer.Argument(help="An installed SAE, or auto.")],
        json_out: JsonOption,
        words: Annotated[int, typer.Option(help="Words of each letter, 50 to 200.")] = 60,
        shots: Annotated[int, typer.Option(help="Examples before each word, 1 to 20.")] = 4,
        examined: Annotated[int, typer.Option(help="Words of each letter looked at one latent at a time.")] = 10,
        seed: Annotated[int, typer.Option(min=0, help="Which words and examples are drawn.")] = 0,
        model: ModelOption = None,
    ) -> None:
        """Ask for first letters, probe for them, and count the words whose letter another latent has taken over."""
        check_out(json_out)
        from app.sae_compare import absorption_document
        from probes.model.shelf import Shelf
        from probes.saes.loading import choose, load_sae
        from probes.saes.spelling import SpellingRequest, measure_absorption

        request = SpellingRequest(words, shots, examined, seed)
        with watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(sae), progress=progress.part(0.0, 0.1))
            chosen = load_sae(choose(sae, loaded.facts), loaded.facts)
            found = measure_absorption(loaded, chosen, request, progress.part(0.1, 1.0))
        write_out(json_out, as_json(absorption_document(found, chosen.info.name, loaded.facts.name)), say)
