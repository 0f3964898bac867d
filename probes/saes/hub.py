"""SAEs of the hub by release and id, through sae-lens' directory of releases and its own loaders."""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from probes.errors import BadRequest
from probes.progress import Progress
from probes.saes.config import CONFIG, SAEFormatError, read_json, sae_lens
from probes.saes.folder import SAEInfo, installed_folders, read_info
from probes.saes.install import SPARSIFY_WEIGHTS, as_name, install, open_sparsify

__all__ = ["HubSAE", "fetch_sae", "resolve"]

EXAMPLE = "gpt2-small-res-jb/blocks.8.hook_resid_pre"
_ID = re.compile(r"[\w.@+=-]+(/[\w.@+=-]+)+", re.ASCII)
_PICKLED = ("connor_rob_hook_z", "dictionary_learning_1", "deepseek_r1", "qwen_scope", "goodfire")
_UNSUPPORTED = ("temporal", "mntss_clt_layer_transcoder")


@dataclass(frozen=True, slots=True)
class HubSAE:
    """An SAE of the hub: its release and id in sae-lens' directory, the repository and folder they mean, the model it
    was made for ("" for a repository that is not in the directory), and the loader of its format."""

    release: str
    sae_id: str
    repo_id: str
    path: str
    model: str
    loader: str

    @property
    def name(self) -> str:
        """The name it is installed under."""
        return as_name(f"{self.release}-{self.sae_id}")


def resolve(asked: str) -> HubSAE:
    """What ``release/sae_id`` or ``organisation/repository/folder`` means. Needs no network.

    Raises:
        BadRequest: there is no such release or id, or its files are pickled or of a kind that cannot be read.
    """
    if not _ID.fullmatch(asked) or len(asked) > 300 or any(set(part) == {"."} for part in asked.split("/")):
        raise BadRequest(f"{asked[:80]!r} is no SAE of the hub: give release/sae_id, such as {EXAMPLE}.")
    sae_lens()
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory, get_repo_id_and_folder_name

    directory = get_pretrained_saes_directory()
    release, _, sae_id = asked.partition("/")
    if release not in directory:
        parts = asked.split("/", 2)
        if len(parts) < 3:
            close = difflib.get_close_matches(release, directory, n=3)
            hint = f"; did you mean {' or '.join(close)}" if close else f"; an example is {EXAMPLE}"
            raise BadRequest(f"There is no release of SAEs called {release[:80]!r}{hint}.")
        release, sae_id = "/".join(parts[:2]), parts[2]
        return HubSAE(release, sae_id, release, sae_id, "", "sae_lens")
    known = directory[release]
    if sae_id not in known.saes_map:
        close = difflib.get_close_matches(sae_id, known.saes_map, n=3) or [*known.saes_map][:3]
        raise BadRequest(
            f"The release {release} has {len(known.saes_map)} SAEs, none called {sae_id[:80]!r}; some are "
            f"{', '.join(close)}."
        )
    loader = known.conversion_func or "sae_lens"
    if loader in _PICKLED:
        raise BadRequest(f"The release {release} has pickled weights, which can run code and are never opened.")
    if loader in _UNSUPPORTED:
        raise BadRequest(f"The release {release} holds {loader} dictionaries, which are not supported.")
    repo_id, path = get_repo_id_and_folder_name(release, sae_id)
    return HubSAE(release, sae_id, repo_id, path, known.model, loader)


def fetch_sae(asked: str, progress: Progress) -> SAEInfo:
    """Fetch an SAE from the hub and install it in SAELens' format, in float32; a no-op if it is installed.

    Raises:
        BadRequest: there is no such SAE, or it is no sound one.
        ConnectionError: the hub cannot be reached, or does not give it.
    """
    found = resolve(asked)
    there = installed_folders().get(found.name)
    if there is not None:
        return read_info(there)
    progress.step(0.05, f"fetching {found.repo_id}")
    module = _load(found)
    module.cfg.metadata.source = f"{found.release}/{found.sae_id} ({found.repo_id})"
    if not module.cfg.metadata.model_name:
        module.cfg.metadata.model_name = found.model
    progress.step(0.8, "checking every weight")
    info = install(found.name, module.save_model)
    progress.step(1.0, "installed")
    return info


def _load(found: HubSAE) -> Any:
    asked = f"{found.release}/{found.sae_id}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if found.release == found.repo_id and _is_sparsify(found):
                return _load_sparsify(found)
            return sae_lens().SAE.from_pretrained(found.release, found.sae_id, device="cpu", dtype="float32")
    except GatedRepoError as error:
        raise ConnectionError(
            f"{found.repo_id} is gated: accept its licence on the hub and log in, then fetch again."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(_unreachable(asked)) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise ConnectionError(f"The hub has no SAE at {found.repo_id}, {found.path}.") from error
    except OSError as error:
        raise ConnectionError(_unreachable(asked)) from error
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        if isinstance(error, SAEFormatError):
            raise
        raise SAEFormatError(f"{asked} cannot be loaded: {ascii(str(error)[:200])[1:-1]}.") from error


def _is_sparsify(found: HubSAE) -> bool:
    """Whether a repository that is in no directory holds sparsify's format: its configuration tells no d_sae."""
    config = Path(hf_hub_download(found.repo_id, f"{found.path}/{CONFIG}"))
    with tempfile.TemporaryDirectory() as work:
        shutil.copyfile(config, Path(work) / CONFIG)
        return not {"d_sae", "architecture", "dict_size"} & set(read_json(Path(work), CONFIG))


def _load_sparsify(found: HubSAE) -> Any:
    above, _, layer = found.path.rpartition("/")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / layer
        folder.mkdir()
        for file in (CONFIG, SPARSIFY_WEIGHTS):
            shutil.copyfile(hf_hub_download(found.repo_id, f"{found.path}/{file}"), folder / file)
        run = True
        try:
            shutil.copyfile(
                hf_hub_download(found.repo_id, f"{above}/config.json".lstrip("/")), Path(work) / "config.json"
            )
        except EntryNotFoundError:
            run = False
        module = open_sparsify(folder)
    if not run:
        module.cfg.metadata.model_name = ""
    return module


def _unreachable(asked: str) -> str:
    return f"The hub cannot be reached to fetch {asked}; SAEs that are installed work without a network."
