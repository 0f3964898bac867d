"""The command ``sae train``: an SAE on own text, broken off with Ctrl-C and taken up again with ``--resume``."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_training import interruptible, read_bytes
from probes.errors import BadRequest
from probes.progress import Progress

__all__ = ["add_train"]


def add_train(
    saes: typer.Typer, watched: Callable[[], AbstractContextManager[Progress]], say: Callable[[str], None]
) -> None:
    """Register the command; ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("train")
    def train(
        name: Annotated[str, typer.Option(help="What the SAE will be called.")],
        model: Annotated[str | None, typer.Option(help="Installed name, hub id, or a path.")] = None,
        layer: Annotated[int | None, typer.Option(help="The point it reads: 1 is the output of block 0.")] = None,
        text_file: Annotated[list[Path] | None, typer.Option(help="A UTF-8 text file; repeatable.")] = None,
        width: Annotated[str, typer.Option(help="Latents, as a number or a multiple of d_model such as 8x.")] = "8x",
        k: Annotated[int, typer.Option(help="Latents that are active at a token.")] = 32,
        tokens: Annotated[int, typer.Option(help="Tokens that are used at most.")] = 1_000_000,
        epochs: Annotated[float, typer.Option(help="How often each token is seen.")] = 3.0,
        learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-3,
        seed: Annotated[int, typer.Option(help="Which documents are held out, the first weights, the order.")] = 0,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the training of this name.")] = False,
        device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ) -> None:
        """Train a sparse autoencoder on your own text; it is installed under its name when it is done."""
        from probes.model.shelf import Shelf
        from probes.saes.own_card import told
        from probes.saes.own_folder import unfinished
        from probes.saes.own_request import OwnRequest, check_name, read_text
        from probes.saes.training import begin, proceed

        if resume:
            begun = unfinished(name)
            if not begun:
                raise BadRequest(f"No training is called {name[:80]!r}.")
            request = begun[0].request
            given = {"model": model, "point": layer}
            _same(request, {key: value for key, value in given.items() if value is not None})
            texts = []
        else:
            if model is None or layer is None or not text_file:
                raise BadRequest("Give --model, --layer and at least one --text-file, or --resume to go on.")
            request = OwnRequest(name, model, layer, width, k, tokens, epochs, learning_rate, seed)
            check_name(name)
            texts = [read_text(path.name, read_bytes(path)) for path in text_file]
        with watched() as shown, interruptible(shown) as progress:
            loaded = Shelf(allow_paths=True).get(request.model, device=device, progress=progress.part(0.0, 0.02))
            if not resume:
                begin(request, texts, loaded)
            folder = proceed(name, loaded, progress.part(0.02, 1.0))
        for line in told(folder):
            say(line)


def _same(request: Any, given: dict[str, Any]) -> None:
    for key, value in given.items():
        if getattr(request, key) != value:
            was = dataclasses.asdict(request)[key]
            raise BadRequest(f"The training {request.name!r} began with {key} {was}, not {value}.")
