"""The command ``compare``: two groups of a prompt set by any metric, and the same in a second model."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from app.cli_json import JsonOption, as_json, check_out, write_out
from probes.errors import BadRequest
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

    @cli.command("compare")
    def compare(
        prompt_set: Annotated[str, typer.Option("--prompt-set", help="A prompt set with groups (`sets list`).")],
        model: Annotated[str, typer.Option(help="Installed name, hub id, or a path.")],
        a: Annotated[str, typer.Option("--a", help="The first group.")],
        b: Annotated[str, typer.Option("--b", help="The group it is compared with.")],
        json_out: JsonOption,
        metric: Annotated[str, typer.Option(help="Any metric that has layers.")] = "alpha_sigma",
        length: Annotated[
            str, typer.Option(help="whole, matched (the largest both groups allow), or a number of tokens.")
        ] = "whole",
        other: Annotated[
            str | None, typer.Option("--with", help="A second model: its change and a reversal test.")
        ] = None,
        mask: Annotated[str, typer.Option(help="Tokens of headline numbers: all, no_bos or no_sink.")] = "all",
        chat: Annotated[bool, typer.Option("--chat/--plain", help="Put texts into the chat template.")] = False,
        bos: Annotated[bool, typer.Option("--bos/--no-bos", help="Begin with BOS where the model has one.")] = True,
        store: StoreOption = None,
    ) -> None:
        """Run what is missing, then test group A against group B at every point; at a matched length also every convention."""
        check_out(json_out)
        if length not in ("whole", "matched") and not length.isdecimal():
            raise BadRequest(f"--length must be whole, matched, or a number of tokens, not {length[:40]!r}.")
        from app.compare_groups import group_document
        from app.groups import GroupAsk
        from app.services import Services
        from probes.model.shelf import Shelf
        from probes.prompts.library import find_set
        from probes.request import DEFAULT_PROBES, RunRequest
        from probes.runner import Runner
        from probes.set_sweep import SetAsk

        with opened(store) as held, watched() as progress:
            asked = SetAsk(find_set(held, prompt_set), RunRequest(model, (0,), DEFAULT_PROBES, mask=mask), chat, bos)
            known = list(asked.prompts.groups)
            for group in (a, b):
                if group not in known:
                    raise BadRequest(f"{prompt_set} has no group {group[:64]!r}; it has {', '.join(known) or 'none'}.")
            shelf = Shelf(allow_paths=True, max_models=2)
            services = Services(held, shelf, Runner(held, shelf))
            ask = GroupAsk(asked, a, b, metric)
            document = group_document(services, ask, length, other, progress)
        write_out(json_out, as_json(document), say)
