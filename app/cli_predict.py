"""The command ``predict``: whether right answers to a prompt set can be told before they are given."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from app.cli_json import JsonOption, as_json, check_out, write_out
from probes.progress import Progress

__all__ = ["add_to"]

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]


def add_to(
    cli: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the command; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""

    @cli.command("predict")
    def predict(
        prompt_set: Annotated[str, typer.Option("--prompt-set", help="A prompt set with answers (`sets list`).")],
        model: Annotated[str, typer.Option(help="Installed name, hub id, or a path.")],
        json_out: JsonOption,
        shuffled: Annotated[
            bool, typer.Option("--shuffled", help="Permute right and wrong first: nothing may be found.")
        ] = False,
        chat: Annotated[bool, typer.Option("--chat/--plain", help="Put texts into the chat template.")] = False,
        seed: Annotated[int, typer.Option(min=0, help="Of folds, resamples and shuffles.")] = 0,
        store: StoreOption = None,
    ) -> None:
        """Answer every prompt, then predict from the states before the answer which are right, beside baselines."""
        check_out(json_out)
        from app.predicting import prediction_document
        from probes.claims.bench import Bench
        from probes.model.shelf import Shelf
        from probes.predicting import predict_correctness
        from probes.prompts.library import find_set
        from probes.runner import Runner

        with opened(store) as held, watched() as progress:
            prompts = find_set(held, prompt_set)
            shelf = Shelf(allow_paths=True)
            bench = Bench(Runner(held, shelf), shelf, model, prompts, progress, seed=seed, shuffled=shuffled, chat=chat)
            document = prediction_document(predict_correctness(bench), model, prompts, chat)
        write_out(json_out, as_json(document), say)
