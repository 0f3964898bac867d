"""Taking an SAE in: from a folder in SAELens' or sparsify's format. It is checked whole before it is there at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.errors import BadRequest
from probes.saes.config import CONFIG, WEIGHTS, SAEFormatError, checked_name, inside, read_json, sae_lens, whole
from probes.saes.folder import SAEInfo, installed_folders, read_info, saes_folder
from probes.saes.loading import check_weights, open_sae

__all__ = ["SPARSIFY_WEIGHTS", "add_folder", "as_name", "install", "open_sparsify"]

SPARSIFY_WEIGHTS = "sae.safetensors"
_TAKEN = (CONFIG, WEIGHTS, "README.md")
_PLACE = re.compile(r"layers[._](\d{1,4})(?:[._](mlp|attention|self_attn|attn))?")
_WRITES = {None: "hook_resid_post", "mlp": "hook_mlp_out"}
_NOT_OURS = ("transcode", "skip_connection", "signed", "embed_skip", "gram_lookup")


def add_folder(folder: Path, name: str | None = None) -> SAEInfo:
    """Install the SAE of a folder under its own name, or another. A sparsify folder becomes one of SAELens.

    Only its configuration, weights and card are copied. Raises SAEFormatError for a folder that is no sound SAE,
    BadRequest for a folder that is not there or a name that is taken, OSError where it cannot be written.
    """
    if not folder.is_dir():
        raise BadRequest(f"There is no folder {str(folder)[:200]!r}.")
    folder = folder.resolve()
    if (folder / SPARSIFY_WEIGHTS).is_file() and not (folder / WEIGHTS).is_file():
        module = open_sparsify(folder)
        model = str(module.cfg.metadata.model_name).split("/")[-1]
        return install(as_name(f"{model}-{folder.name}") if name is None else name, module.save_model)
    if name is None:
        read_info(folder)  # the one that is at fault is named before anything is copied

    def copy(staged: Path) -> None:
        staged.mkdir()
        for file in _TAKEN:
            if inside(folder, file).is_file():
                shutil.copyfile(folder / file, staged / file)

    return install(folder.name if name is None else name, copy)


def install(name: str, write: Callable[[Path], object]) -> SAEInfo:
    """Install what ``write`` puts into a new folder: checked there with all its weights, then renamed into place.

    Raises SAEFormatError if it is no sound SAE, BadRequest if the name is taken; then nothing is left behind.
    """
    checked_name(name)
    if name in installed_folders() or (saes_folder() / name).exists():
        raise BadRequest(f"An SAE called {name} is installed already; give this one another name.")
    saes_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=saes_folder()) as work:
        staged = Path(work) / name
        write(staged)
        open_sae(read_info(staged))
        try:
            staged.rename(saes_folder() / name)
        except OSError:
            if (saes_folder() / name).exists():  # another process was first
                raise BadRequest(f"An SAE called {name} is installed already; give this one another name.") from None
            raise
    return read_info(saes_folder() / name)


def as_name(text: str) -> str:
    """A text as the name of a folder: what a name cannot hold becomes ``-``."""
    return re.sub(r"[^\w.+=@-]+", "-", text).lstrip("-.+=@")[:120].rstrip("-.") or "sae"


def open_sparsify(folder: Path) -> Any:
    """The SAE of a folder as EleutherAI's sparsify writes it, as an SAE of sae-lens in float32.

    Two things of sae-lens 6.54.12's loader are set right, both against sparsify's own code: W_dec is stored with a row
    a latent and must not be transposed, and b_dec is always taken off the input, whether or not the decoder is
    normalised.

    Raises:
        SAEFormatError: the folder's name tells no layer, or its configuration or weights cannot be used.
    """
    name = folder.name
    place = _PLACE.fullmatch(name)
    if place is None:
        raise SAEFormatError(f"{name[:80]!r}: a folder of sparsify is called after its layer, such as layers.5.")
    config = read_json(folder, CONFIG)
    if inside(folder.parent, "config.json").is_file():
        read_json(folder.parent, "config.json")
    _check_sparsify(config, name)
    d_in = whole(config, "d_in", name)
    d_sae = whole(config, "num_latents", name) if config.get("num_latents") else None
    d_sae = d_sae or d_in * whole(config, "expansion_factor", name)
    whole(config, "k", name, at_most=d_sae)
    shapes = {"encoder.weight": [d_sae, d_in], "encoder.bias": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in]}
    check_weights(folder, SPARSIFY_WEIGHTS, shapes, name)
    hook = f"blocks.{int(place[1])}.{_WRITES.get(place[2], 'hook_attn_out')}"

    def load(path: Path, device: str, cfg_overrides: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader

        given = {
            **(cfg_overrides or {}),
            "apply_b_dec_to_input": True,
            "hook_name": hook,
            "num_latents": d_sae,
            "d_sae": d_sae,
        }
        settings, weights = sparsify_disk_loader(path, device, given)
        return settings, weights | {"W_dec": weights["W_dec"].T.contiguous(), "W_enc": weights["W_enc"].contiguous()}

    module = sae_lens().SAE.load_from_disk(folder, device="cpu", dtype="float32", converter=load)
    module.cfg.metadata.source = "a folder of EleutherAI sparsify"
    return module.eval().requires_grad_(False)


def _check_sparsify(config: dict[str, Any], name: str) -> None:
    if config.get("activation", "topk") != "topk":
        raise SAEFormatError(
            f"{name}: the activation {ascii(config['activation'])[:80]} is not supported; it must be topk."
        )
    asked = [key for key in _NOT_OURS if config.get(key)]
    if asked:
        raise SAEFormatError(f"{name}: {asked[0]} of sparsify is not supported.")
