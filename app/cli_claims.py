"""The command line of claims: ``claims list | run``."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from app.claims import claims_document, claims_markdown, other_models
from app.cli_json import as_json, check_out, write_out
from app.text import number
from probes.errors import BadRequest
from probes.model.catalog import EMBEDDED
from probes.progress import Progress

__all__ = ["add_to"]

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]


def add_to(
    cli: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the commands; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""
    group = typer.Typer(no_args_is_help=True, help="Test what papers report on a model and a prompt set.")
    cli.add_typer(group, name="claims")

    @group.command("list")
    def list_() -> None:
        """The claims: name, title, prompt set, paper."""
        from probes.claims.registry import claims

        for claim in claims():
            say(f"{claim.name}\t{claim.title}\t{claim.prompts}\t{claim.paper}")

    @group.command("run")
    def run(
        names: Annotated[list[str] | None, typer.Argument(help="Claims, as `claims list` names them.")] = None,
        every: Annotated[bool, typer.Option("--all", help="All claims.")] = False,
        model: Annotated[str, typer.Option(help="An installed model, a path or a hub id.")] = EMBEDDED,
        prompt_set: Annotated[str | None, typer.Option(help="A set in place of each claim's own.")] = None,
        with_: Annotated[
            list[str] | None,
            typer.Option(
                "--with", help="Another model, for claims about several; repeatable. Left out: the installed."
            ),
        ] = None,
        json_out: Annotated[str | None, typer.Option("--json", help="Write outcomes to a file, or - here.")] = None,
        markdown_out: Annotated[
            str | None, typer.Option("--markdown", help="Write the table to a file, or - here.")
        ] = None,
        shuffled: Annotated[
            bool, typer.Option("--shuffled", help="The control of the bench: permute what a claim pairs.")
        ] = False,
        seed: Annotated[int, typer.Option(help="Draws, folds and permutations.")] = 0,
        store: StoreOption = None,
    ) -> None:
        """Test claims; outcomes are kept, so a run that was stopped goes on where it was."""
        if bool(names) == every:
            raise BadRequest("Name some claims, or give --all; claims list names them.")
        if json_out == markdown_out == "-":
            raise BadRequest("Only one of --json and --markdown can go to standard output.")
        for flag, where in (("--json", json_out), ("--markdown", markdown_out)):
            if where is not None:
                check_out(where, flag)
        from probes.claims.registry import claims
        from probes.claims.running import Ask, Finding, run_claims
        from probes.model.shelf import Shelf
        from probes.runner import Runner

        chosen = names or [claim.name for claim in claims() if claim.shuffles is not None or not shuffled]
        others = other_models(model) if with_ is None else tuple(with_)
        ask = Ask(tuple(dict.fromkeys(chosen)), model, prompt_set, others, seed, shuffled)
        quiet = "-" in (json_out, markdown_out)

        def told(one: Finding) -> None:
            if not quiet:
                effect = "" if one.outcome.effect is None else number(one.outcome.effect)
                say(f"{one.claim.name}\t{one.outcome.verdict}\t{effect}\t{one.outcome.reason}")

        with opened(store) as held, watched() as progress:
            shelf = Shelf(allow_paths=True)
            found = run_claims(Runner(held, shelf), shelf, ask, progress, told)
        for where, text in (
            (json_out, as_json(claims_document(found))),
            (markdown_out, claims_markdown(found).rstrip("\n")),
        ):
            if where is not None:
                write_out(where, text, say)
