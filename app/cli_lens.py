"""The command line of tuned lenses: ``lens train | list | add``."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_training import interruptible, read_bytes
from app.text import printable
from probes.errors import BadRequest
from probes.progress import Progress

__all__ = ["add_to"]


def add_to(
    cli: typer.Typer, watched: Callable[[], AbstractContextManager[Progress]], say: Callable[[str], None]
) -> None:
    """Register the commands; ``watched`` shows progress, ``say`` prints a line."""
    lenses = typer.Typer(no_args_is_help=True, help="Train, list and add tuned lenses.")
    cli.add_typer(lenses, name="lens")

    @lenses.command("train")
    def train(
        name: Annotated[str, typer.Option(help="What the lens will be called.")],
        model: Annotated[str | None, typer.Option(help="Installed name, hub id, or a path.")] = None,
        text_file: Annotated[
            list[Path] | None,
            typer.Option(help="A UTF-8 text file; repeatable. Left out: the shipped SAE's corpus, fetched if need be."),
        ] = None,
        built_in: Annotated[
            bool, typer.Option("--built-in", help="The texts that come with the app instead: enough to try, no more.")
        ] = False,
        tokens: Annotated[int, typer.Option(help="Tokens that are read at most, each once.")] = 200_000,
        learning_rate: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
        seed: Annotated[int, typer.Option(help="Which documents are held out, the order, the positions.")] = 0,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the training of this name.")] = False,
        device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ) -> None:
        """Train a tuned lens; it is installed under its name when it is done."""
        from app.training import built_in as built_in_texts
        from probes.lenses.shelf import unfinished
        from probes.lenses.text import corpus_excerpts
        from probes.lenses.training import begin, proceed
        from probes.lenses.work import LensRequest
        from probes.model.shelf import Shelf
        from probes.saes.own_request import read_text

        if resume:
            begun = unfinished(name)
            if not begun:
                raise BadRequest(f"No training of a tuned lens is called {name[:80]!r}.")
            request = begun[0].work.request
            if model not in (None, request.model):
                raise BadRequest(f"The training {name!r} began with the model {request.model}, not {str(model)[:80]}.")
        elif model is None:
            raise BadRequest("Give --model, or --resume to go on.")
        elif built_in and text_file:
            raise BadRequest("Give --text-file or --built-in, not both.")
        else:
            rate: dict[str, Any] = {} if learning_rate is None else {"learning_rate": learning_rate}
            request = LensRequest(name, model, tokens, seed=seed, **rate)
        texts = [read_text(path.name, read_bytes(path)) for path in text_file or []] if not resume else []
        with watched() as shown, interruptible(shown) as progress:
            loaded = Shelf(allow_paths=True).get(request.model, device=device, progress=progress.part(0.0, 0.02))
            if not resume:
                progress.step(0.02, "reading the text")
                begin(request, texts or (built_in_texts() if built_in else corpus_excerpts(seed)), loaded)
            folder = proceed(name, loaded, progress.part(0.03, 1.0))
        say(_told(folder))
        for line in _points(folder):
            say(line)

    @lenses.command("list")
    def list_() -> None:
        """The installed lenses: name, model, shape, how they came to be; and the trainings that were not ended."""
        from probes.lenses.folder import installed_lenses
        from probes.lenses.shelf import unfinished

        for folder in installed_lenses().values():
            say(_told(folder))
        for one in unfinished():
            far = f"step {one.done:,} of {one.work.steps:,}"
            say(
                f"{one.work.request.name}\t{printable(one.work.request.model)}\tunfinished, {far}{', running' * one.busy}"
            )

    @lenses.command("add")
    def add(
        folder: Annotated[Path, typer.Argument(help="A folder of the package tuned-lens: config.json and params.pt.")],
        model: Annotated[
            str | None, typer.Option(help="The model it was trained on; left out: the one its configuration names.")
        ] = None,
        name: Annotated[str | None, typer.Option(help="Its name here; the folder's if left out.")] = None,
    ) -> None:
        """Install the lens of a folder once its numbers and the model's unembedding were checked. No code of it is run."""
        from probes.lenses.folder import read_config
        from probes.lenses.shelf import add_lens
        from probes.model.shelf import Shelf

        named = model or read_config(folder).base_model_name_or_path
        if not named:
            raise BadRequest(f"The tuned lens {folder.name[:80]!r} names no model: give --model.")
        with watched() as progress:
            say(_told(add_lens(folder, Shelf(allow_paths=model is not None).get(named, progress=progress), name)))


def _told(folder: Path) -> str:
    """A lens in one line."""
    from probes.lenses.folder import read_config
    from probes.lenses.training import read_report

    try:
        config = read_config(folder)
    except BadRequest as problem:
        return f"{printable(folder.name)}\tcannot be used\t{printable(str(problem))}"
    kl = read_report(folder).get("kl")
    how = "trained elsewhere"
    if isinstance(kl, dict):
        raw, mean, tuned = (sum(kl[variant]) / len(kl[variant]) for variant in ("raw", "mean", "tuned"))
        how = f"held-out KL, mean of all points: tuned {tuned:.3f}, mean-corrected {mean:.3f}, raw {raw:.3f} nats"
    shape = f"{config.num_hidden_layers} points of {config.d_model} dimensions"
    return f"{folder.name}\t{printable(config.base_model_name_or_path)}\t{shape}\t{how}\t{printable(str(folder))}"


def _points(folder: Path) -> list[str]:
    """KL to the end on held-out text at every point, in nats."""
    from probes.lenses.training import read_report

    kl: Any = read_report(folder)["kl"]
    rows = zip(kl["raw"], kl["mean"], kl["tuned"], strict=True)
    return ["point\traw\tmean-corrected\ttuned"] + [
        f"{point}\t{raw:.4f}\t{mean:.4f}\t{tuned:.4f}" for point, (raw, mean, tuned) in enumerate(rows)
    ]
