"""The command line, stable for scripts: ``python -m app models|run|sets|cache|sessions|bundle|figure|report|sae``.

What fails says so in one sentence on standard error and exits with the documented status.
"""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from app import cli_report, cli_saes, cli_sessions, cli_sets
from app.arguments import assignments, integers, merge, positions
from app.report.chromium import PictureError
from app.report.files import check_place, write_whole
from cache.bundle_format import BundleRefused
from cache.errors import StoreError
from cache.home import store_path
from probes.errors import BadRequest, ModelRefused, NonFinite, PlanRefused
from probes.progress import Cancelled, Progress

__all__ = ["main"]

STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (BadRequest, 2),
    (BundleRefused, 2),
    (PlanRefused, 3),
    (StoreError, 4),
    (Cancelled, 130),
    (KeyboardInterrupt, 130),
    (ModelRefused, 1),
    (NonFinite, 1),
    (cli_sessions.CheckFailed, 1),
    (PictureError, 1),
    (OSError, 1),
)

cli = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
models_cli = typer.Typer(no_args_is_help=True, help="Fetch, list and check models.")
cache_cli = typer.Typer(no_args_is_help=True, help="Look after the store.")
cli.add_typer(models_cli, name="models")
cli.add_typer(cache_cli, name="cache")

StoreOption = Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")]


def main() -> None:
    """Run the command line and exit with the documented status."""
    _quiet_libraries()
    try:
        status = cli(standalone_mode=False)
    except TyperException as error:
        _fail(error.format_message(), 2)
    except tuple(kind for kind, _ in STATUS) as error:
        code = next(code for kind, code in STATUS if isinstance(error, kind))
        _fail(str(error) or "cancelled", code)
    sys.exit(status or 0)


@models_cli.command("fetch")
def models_fetch(name: str) -> None:
    """Install the embedded model, or load a hub model once so that it is on this disk."""
    from probes.model.catalog import EMBEDDED
    from probes.model.embedded import fetch_embedded
    from probes.model.shelf import Shelf

    with _progress() as progress:
        where = str(fetch_embedded(progress)) if name == EMBEDDED else repr(_shelf(Shelf).get(name, progress=progress))
    _say(where)


@models_cli.command("list")
def models_list() -> None:
    """The installed models and the presets that can be fetched."""
    from probes.model.catalog import PRESETS, installed

    for source in installed().values():
        _say(f"{source.name}\tinstalled\t{source.weights or 'as stored'}\t{source.folder}")
    for hub_id, label in PRESETS.items():
        _say(f"{hub_id}\thub\t{label}")


@models_cli.command("check")
def models_check(name: str, dtype: str = "float32", device: str = "auto") -> None:
    """Load a model and print its self-check; status 1 if it is refused."""
    from probes.model.shelf import Shelf

    with _progress() as progress:
        model = _shelf(Shelf).get(name, dtype, device, progress)
    _say(
        f"{model.facts.name}\t{model.facts.weights}\t{model.facts.architecture}\tfingerprint {model.facts.fingerprint}"
    )
    for check in model.health:
        _say(f"ok\t{check.name}\t{check.says}")


@cli.command("run")
def run_command(
    model: Annotated[str, typer.Option(help="Installed name, hub id, or a path starting with /, ./ or ~.")],
    json_out: Annotated[str, typer.Option("--json", help="Where the result goes: a file, or - for standard output.")],
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
    session: Annotated[
        str | None, typer.Option("--session", help="Keep the run in the session of this id or title; made if new.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Run probes on one prompt and write ``{"run": {...}, "<table>": [rows]}``; of a set one such entry a prompt."""
    write = _output(json_out)
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
    from probes.runner import Runner

    names = [name.strip() for name in probes.split(",")] if probes is not None else [c.name for c in DEFAULT_PROBES]
    params = merge(names, given, points=integers(points, "points"), positions=positions(at), sae=sae)
    calls = tuple(ProbeCall(name, params.get(name, {})) for name in names)
    conversation = parse_messages(prompt) if messages is not None else None
    edits = parse_edits(edit or [])
    like = RunRequest(
        model, (0,), calls, mask=mask, dtype=dtype, device=device, edits=edits
    )  # refuse what is bad first
    if prompt_set is not None:
        from app.cli_set_run import run_set

        with _store(store) as opened, _progress() as progress:
            shelf = _shelf(Shelf)
            runner = Runner(opened, shelf)
            refused = run_set(runner, shelf, prompt_set, like, chat=chat, bos=bos, out=json_out, progress=progress)
        sys.stderr.writelines(refused)
        return
    with _store(store) as opened, _progress() as progress:
        shelf = _shelf(Shelf)
        loaded = shelf.get(model, dtype, device, progress.part(0.0, 0.3))
        if conversation is not None or chat:
            ids = chat_ids(loaded, conversation or ({"role": "user", "content": prompt},), bos=bos)
        else:
            ids = text_ids(loaded, prompt, bos=bos)
        result = Runner(opened, shelf).run(dataclasses.replace(like, token_ids=ids), progress.part(0.3, 1.0))
        kept = None if session is None else cli_sessions.keep_run(opened, session, result.info)
        document = run_document(result, kept)
    write(json.dumps(document, allow_nan=False, ensure_ascii=False))


@cli.command("example")
def example_command(store: StoreOption = None) -> None:
    """Store the run the Overview opens with, its TRY runs, its whole lens, the shipped SAE's index: pages appear at once."""
    from app.services import example_requests
    from probes.model.shelf import Shelf
    from probes.request import ProbeCall
    from probes.runner import Runner

    with _store(store) as opened, _progress() as progress:
        shelf = Shelf()
        runner = Runner(opened, shelf)
        requests = example_requests(shelf, progress.part(0.0, 0.2))
        requests = (*requests, requests[-1].with_probes(ProbeCall("lens", {"positions": "all"})))
        parts = [0.2 + 0.8 * index / len(requests) for index in range(len(requests) + 1)]
        made = [
            runner.run(request, progress.part(start, end)).info
            for request, (start, end) in zip(requests, pairwise(parts), strict=True)
        ]
        indexed = cli_saes.take_in_indexes(opened)
    for info in made:
        _say(f"{info.run_id}\t{info.n_tokens} tokens\t{info.seconds:.1f} s\t{info.forward_passes} forward passes")
    for line in indexed:
        _say(line)


@cache_cli.command("info")
def cache_info(store: StoreOption = None) -> None:
    """What the store holds."""
    with _store(store) as opened:
        for key, value in opened.info().items():
            _say(f"{key}\t{value}")


@cache_cli.command("prune")
def cache_prune(
    max_bytes: Annotated[int, typer.Option(min=0, help="Drop least recently used tensors down to this many bytes.")],
    store: StoreOption = None,
) -> None:
    """Drop tensors that were not used for longest; result tables stay."""
    with _store(store) as opened:
        _say(f"dropped\t{opened.prune(max_bytes)}")


@cache_cli.command("verify")
def cache_verify(store: StoreOption = None) -> None:
    """Read every tensor and compare its checksum; status 4 if one is damaged."""
    with _store(store) as opened:
        damaged = opened.verify()
    for owner, name in damaged:
        _say(f"damaged\t{owner}\t{name}")
    if damaged:
        raise StoreError(
            f"{len(damaged)} tensors of the store are damaged; they are computed again when they are next needed."
        )
    _say("every tensor is whole")


def _shelf(kind: Any) -> Any:
    return kind(allow_paths=True)


@contextmanager
def _store(where: str | None) -> Iterator[Any]:
    from cache.store import Store

    with Store.open(store_path() if where is None else where) as store:
        yield store


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress on one line of stderr, if somebody is looking."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    try:
        yield Progress(lambda fraction, what: _line(f"\r\x1b[K{fraction:4.0%}  {what[:100]}"))
    finally:
        _line("\r\x1b[K")


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


def _output(where: str) -> Callable[[str], None]:
    """A function that writes the document whole or not at all; refuses a bad place before any work is done."""
    if where == "-":
        return _say
    path = Path(where)
    check_place(path, "--json")
    return lambda document: write_whole(path, (document + "\n").encode())


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.WARNING)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _line(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


cli_sessions.add_to(cli, _store, _progress, _say)
cli_report.add_to(cli, _store, _progress, _say)
cli_saes.add_to(cli, _store, _progress, _say)
cli_sets.add_to(cli, _store, _say)


def _fail(sentence: str, status: int) -> None:
    sys.stderr.write("error: " + " ".join(sentence.split()) + "\n")
    sys.exit(status)
