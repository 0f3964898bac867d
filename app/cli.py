"""The command line, stable for scripts: ``python -m app``, then models, run, sets, compare, claims, lens, sae, report ...

What fails says so in one sentence on standard error and exits with the documented status.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from app import cli_claims, cli_compare, cli_lens, cli_predict, cli_report, cli_run, cli_saes, cli_sessions, cli_sets
from app.report.chromium import PictureError
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
        where = (
            str(fetch_embedded(progress))
            if name == EMBEDDED
            else repr(Shelf(allow_paths=True).get(name, progress=progress))
        )
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
        model = Shelf(allow_paths=True).get(name, dtype, device, progress)
    _say(
        f"{model.facts.name}\t{model.facts.weights}\t{model.facts.architecture}\tfingerprint {model.facts.fingerprint}"
    )
    for check in model.health:
        _say(f"ok\t{check.name}\t{check.says}")


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


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.WARNING)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _line(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


cli_run.add_to(cli, _store, _progress, _say)
cli_sessions.add_to(cli, _store, _progress, _say)
cli_report.add_to(cli, _store, _progress, _say)
cli_saes.add_to(cli, _store, _progress, _say)
cli_sets.add_to(cli, _store, _say)
cli_compare.add_to(cli, _store, _progress, _say)
cli_claims.add_to(cli, _store, _progress, _say)
cli_predict.add_to(cli, _store, _progress, _say)
cli_lens.add_to(cli, _progress, _say)


def _fail(sentence: str, status: int) -> None:
    sys.stderr.write("error: " + " ".join(sentence.split()) + "\n")
    sys.exit(status)
