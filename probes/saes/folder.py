"""SAE folders in SAELens' format: which are installed, and what their configuration says.

Nothing but JSON and safetensors is ever opened. Every refusal is one sentence naming the file or key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cache.home import home
from probes.saes.config import (
    CONFIG,
    SUPPORTED,
    TRANSCODERS,
    WEIGHTS,
    SAEFormatError,
    inside,
    optional_whole,
    positive,
    read_config,
    sae_lens,
    said,
    whole,
)

__all__ = [
    "CONFIG",
    "SUPPORTED",
    "WEIGHTS",
    "InstalledSAE",
    "SAEFormatError",
    "SAEInfo",
    "content_digest",
    "installed_folders",
    "installed_saes",
    "point_of_hook",
    "read_info",
    "sae_lens",
    "saes_folder",
]

_SHIPPED = Path(__file__).parent
_HOOK = re.compile(r"blocks\.(\d{1,4})\.((?:attn\.|mlp\.|ln[12]\.)?[a-z_]{1,40})")
_RESIDUAL = ("hook_resid_pre", "hook_resid_post")
_MLP_INPUTS = ("ln2.hook_normalized", "hook_mlp_in", "mlp.hook_in", "mlp.hook_pre")
_MAX_CARD = 1 << 18


@dataclass(frozen=True, slots=True)
class SAEInfo:
    """What an SAE or transcoder says of itself.

    ``point`` is where in the residual stream it reads; for one that reads inside block b, the point b + 1 where the
    block's output stands (``unreadable`` then says why no run can be read with it). ``remark`` is its maker's caveat,
    ``corpus_variance`` the reference of explained variance stored with it (None if it brings none), ``normalisation``
    what is done to each state before encoding. ``hook_name_out`` and ``d_out`` are where and how wide a transcoder
    writes, None for an SAE, which writes where it reads. ``source`` is where it was fetched from and ``neuronpedia`` its
    id there (``model/set``), "" if not told.
    """

    name: str
    folder: Path
    shipped: bool
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    stored_dtype: str
    hook_name: str
    point: int
    model_name: str
    context_size: int | None
    training_tokens: int | None
    corpus_variance: float | None
    remark: str
    normalisation: str = "none"
    d_out: int | None = None
    hook_name_out: str | None = None
    source: str = ""
    neuronpedia: str = ""

    @property
    def unreadable(self) -> str | None:
        """Why it can be loaded but not be read on a run, None for one that reads the residual stream."""
        site = self.hook_name.split(".", 2)[-1]
        if site in _RESIDUAL and self.d_out is None:
            return None
        reads = "the input of the MLP" if site in _MLP_INPUTS else "another site than the residual stream"
        if site in _RESIDUAL:
            reads = "one site and writes another"
        return (
            f"{self.name} can be loaded but not be read on a run yet: it reads {reads} ({self.hook_name}), and runs keep "
            "the residual stream at the points between blocks."
        )

    @property
    def card(self) -> str | None:
        """The text of its README.md, None if it has none."""
        path = self.folder / "README.md"
        if not path.is_file() or not path.resolve().is_relative_to(self.folder.resolve()):
            return None
        with path.open("rb") as file:
            return file.read(_MAX_CARD).decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class InstalledSAE:
    """A folder among the installed ones: its info, or the problem that keeps it from being used."""

    name: str
    folder: Path
    info: SAEInfo | None
    problem: str | None


def saes_folder() -> Path:
    """Where SAEs are installed: ``EIGENSCOPE_HOME/saes``."""
    return home() / "saes"


def installed_folders() -> dict[str, Path]:
    """The folders that hold a configuration, shipped or below ``EIGENSCOPE_HOME/saes``, by name; nothing is read."""
    folders = {folder.name: folder for place in (_SHIPPED, saes_folder()) for folder in _folders(place)}
    return dict(sorted(folders.items()))


def installed_saes() -> tuple[InstalledSAE, ...]:
    """What the installed folders say of themselves, by name; home wins where both have a name."""
    found = []
    for name, folder in installed_folders().items():
        try:
            found.append(InstalledSAE(name, folder, read_info(folder), None))
        except SAEFormatError as error:
            found.append(InstalledSAE(name, folder, None, str(error)))
        except OSError as error:
            found.append(InstalledSAE(name, folder, None, f"{name[:80]!r} cannot be read: {error.strerror}."))
    return tuple(found)


def read_info(folder: Path) -> SAEInfo:
    """What the configuration of a folder says. Weights must be there but are not read.

    Raises:
        SAEFormatError: a file or key is missing, there are only pickled weights, or the architecture, normalisation or
            hook is not supported.
    """
    name = folder.name
    config = read_config(folder)
    metadata = config.get("metadata", {})
    hook, hook_out = metadata.get("hook_name"), metadata.get("hook_name_out")
    d_in, d_sae = whole(config, "d_in", name), whole(config, "d_sae", name)
    architecture = str(config["architecture"])
    transcodes = architecture in TRANSCODERS
    if transcodes and hook_out is not None:
        point_of_hook(str(hook_out), name)
    return SAEInfo(
        name=name,
        folder=folder,
        shipped=folder.parent == _SHIPPED,
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        k=whole(config, "k", name, at_most=d_sae) if architecture == "topk" else None,
        stored_dtype=said(config, "dtype", 20),
        hook_name=str(hook),
        point=point_of_hook(str(hook), name),
        model_name=said(metadata, "model_name"),
        context_size=optional_whole(metadata, "context_size", name),
        training_tokens=optional_whole(metadata, "training_tokens", name),
        corpus_variance=positive(metadata, "corpus_variance", name),
        remark=said(metadata, "remark", 400),
        normalisation=str(config.get("normalize_activations", "none")),
        d_out=whole(config, "d_out", name) if transcodes else None,
        hook_name_out=str(hook_out) if transcodes and hook_out is not None else None,
        source=said(metadata, "source"),
        neuronpedia=_neuronpedia(said(metadata, "neuronpedia_id")),
    )


def point_of_hook(hook_name: str, name: str = "SAE") -> int:
    """The point of a TransformerLens hook: ``blocks.b.hook_resid_pre`` is b, every other hook of block b is b + 1.

    Raises:
        SAEFormatError: a hook that is not one of a block.
    """
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        raise SAEFormatError(
            f"{name}: hook_name must be a hook of a block such as blocks.N.hook_resid_post, not {hook_name[:80]!r}."
        )
    return int(match[1]) + (match[2] != "hook_resid_pre")


def content_digest(folder: Path) -> str:
    """Hash of configuration and weights, those that are there: what a stored result of this SAE depends on.

    Cached until a file changes. A file that leads out of the folder is not read.
    """
    there = []
    for name in (CONFIG, WEIGHTS):
        try:
            path = inside(folder, name)
        except SAEFormatError:
            continue
        if path.is_file():
            there.append(path)
    return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in there))


def _neuronpedia(told: str) -> str:
    return told if re.fullmatch(r"[\w.-]{1,80}/[\w.-]{1,80}", told, re.ASCII) else ""


@cache
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, _, __ in stamps:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _folders(place: Path) -> Iterator[Path]:
    """Folders with a configuration; those that begin with a dot are being made."""
    if place.is_dir():
        yield from (folder for folder in place.iterdir() if folder.name[0] != "." and (folder / CONFIG).is_file())
