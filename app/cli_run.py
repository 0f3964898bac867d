"""The commands ``run``, which reads one prompt with probes, and ``example``, which stores what the app opens with."""

import dataclasses
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from app import cli_saes, cli_sessions
from app.arguments import assignments, integers, merge, positions
from app.report.files import check_place, write_whole
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
    """Register the commands; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""

    @cli.command("run")
    def run_command(
        model: Annotated[str, typer.Option(help="Installed name, hub id, or a path starting with /, ./ or ~.")],
        json_out: Annotated[
            str, typer.Option("--json", help="Where the result goes: a file, or - for standard output.")
        ],
        text: Annotated[str | None, typer.Option(help="The prompt.")] = None,
        text_file: Annotated[Path | None, typer.Option(help="A file with the prompt, read as it is.")] = None,
        messages: Annotated[Path | None, typer.Option(help="A JSON file with chat messages.")] = None,
        prompt_set: Annotated[
            str | None, typer.Option("--prompt-set", help="A prompt set (`sets list`): every prompt of it is run.")
        ] = None,
        chat: Annotated[bool, typer.Option("--chat/--plain", help="Put the text into the chat template.")] = False,
        bos: Annotated[bool, typer.Option("--bos/--no-bos", help="Begin with BOS where the model has one.")] = True,
        probes: Annotated[
            str | None, typer.Option(help="Comma-separated probe names; the default probes if left out.")
        ] = None,
        mask: Annotated[str, typer.Option(help="Tokens of headline numbers: all, no_bos or no_sink.")] = "all",
        points: Annotated[str | None, typer.Option(help="Layer points, such as 0,12,30.")] = None,
        at: Annotated[
            str | None,
            typer.Option(
                "--positions", help="Lens positions: all (of one prompt), sample (of a set), last, or such as 0-63."
            ),
        ] = None,
        dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
        device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
        sae: Annotated[str | None, typer.Option(help="The SAE that latents are read with.")] = None,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="probe.parameter=value, value as JSON or text.")
        ] = None,
        edit: Annotated[
            list[str] | None, typer.Option("--edit", help="A change inside the pass, as JSON; repeatable.")
        ] = None,
        generate: Annotated[
            int | None,
            typer.Option(help="Let the model write up to this many tokens, then run prompt and response together."),
        ] = None,
        temperature: Annotated[float, typer.Option(help="Of --generate: 0 takes the likeliest tokens.")] = 0.0,
        seed: Annotated[int, typer.Option(help="Of --generate at a temperature above 0.")] = 0,
        session: Annotated[
            str | None, typer.Option("--session", help="Keep the run in the session of this id or title; made if new.")
        ] = None,
        store: StoreOption = None,
    ) -> None:
        """Run probes on one prompt and write ``{"run": {...}, "<table>": [rows]}``; of a set one such entry a prompt."""
        write = _output(json_out, say)
        given = assignments(settings or [])
        if sum(source is not None for source in (text, text_file, messages, prompt_set)) != 1:
            raise BadRequest("Give the prompt by exactly one of --text, --text-file, --messages and --prompt-set.")
        if session is not None and prompt_set is not None:
            raise BadRequest("--session keeps one run; a prompt set has one for each of its prompts.")
        prompt = "" if prompt_set is not None else _prompt(text, text_file, messages)
        at = at or ("all" if prompt_set is None else "sample")
        from app.documents import run_document
        from probes.model.edits import parse_edits
        from probes.model.shelf import Shelf
        from probes.model.tokenise import chat_ids, text_ids
        from probes.prompts.messages import parse_messages
        from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
        from probes.respond import Generation, respond
        from probes.runner import Runner

        how = None if generate is None else Generation(generate, temperature, seed)
        names = [name.strip() for name in probes.split(",")] if probes is not None else [c.name for c in DEFAULT_PROBES]
        params = merge(names, given, points=integers(points, "points"), positions=positions(at), sae=sae)
        calls = tuple(ProbeCall(name, params.get(name, {})) for name in names)
        conversation = parse_messages(prompt) if messages is not None else None
        edits = parse_edits(edit or [])
        like = RunRequest(
            model, (0,), calls, mask=mask, dtype=dtype, device=device, edits=edits
        )  # refuse what is bad first
        if prompt_set is not None:
            from app.cli_set_answer import answer_set
            from app.cli_set_run import run_set, set_ask

            with opened(store) as held, watched() as progress:
                shelf = Shelf(allow_paths=True)
                runner = Runner(held, shelf)
                asked = set_ask(held, prompt_set, like, chat=chat, bos=bos)
                if how is None:
                    refused = run_set(runner, shelf, asked, out=json_out, progress=progress)
                else:
                    refused = answer_set(runner, shelf, asked, how, out=json_out, progress=progress)
            sys.stderr.writelines(refused)
            return
        with opened(store) as held, watched() as progress:
            shelf = Shelf(allow_paths=True)
            loaded = shelf.get(model, dtype, device, progress.part(0.0, 0.3))
            if conversation is not None or chat:
                ids = chat_ids(loaded, conversation or ({"role": "user", "content": prompt},), bos=bos)
            else:
                ids = text_ids(loaded, prompt, bos=bos)
            request, runner = dataclasses.replace(like, token_ids=ids), Runner(held, shelf)
            if how is None:
                result = runner.run(request, progress.part(0.3, 1.0))
            else:
                result = respond(runner, loaded, request, how, progress.part(0.3, 1.0))
            kept = None if session is None else cli_sessions.keep_run(held, session, result.info)
            document = run_document(result, kept)
        write(json.dumps(document, allow_nan=False, ensure_ascii=False))

    @cli.command("example")
    def example_command(store: StoreOption = None) -> None:
        """Store the run the Overview opens with, its TRY runs, its whole lens, the shipped SAE's index: pages appear at once."""
        from app.services import example_requests
        from probes.model.shelf import Shelf
        from probes.request import ProbeCall
        from probes.runner import Runner

        with opened(store) as held, watched() as progress:
            shelf = Shelf()
            runner = Runner(held, shelf)
            requests = example_requests(shelf, progress.part(0.0, 0.2))
            requests = (*requests, requests[-1].with_probes(ProbeCall("lens", {"positions": "all"})))
            parts = [0.2 + 0.8 * index / len(requests) for index in range(len(requests) + 1)]
            made = [
                runner.run(request, progress.part(start, end)).info
                for request, (start, end) in zip(requests, pairwise(parts), strict=True)
            ]
            indexed = cli_saes.take_in_indexes(held)
        for info in made:
            say(f"{info.run_id}\t{info.n_tokens} tokens\t{info.seconds:.1f} s\t{info.forward_passes} forward passes")
        for line in indexed:
            say(line)


def _prompt(text: str | None, text_file: Path | None, messages: Path | None) -> str:
    if text is not None:
        return text
    path = text_file or messages
    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
        )
        raise BadRequest(f"The file {path} cannot be read: {reason}.") from None


def _output(where: str, say: Callable[[str], None]) -> Callable[[str], None]:
    """A function that writes the document whole or not at all; refuses a bad place before any work is done."""
    if where == "-":
        return say
    path = Path(where)
    check_place(path, "--json")
    return lambda document: write_whole(path, (document + "\n").encode())
