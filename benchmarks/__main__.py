"""``make bench``: every ratio, printed and written to benchmarks/RESULTS.md."""

import platform
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import capture, clicks, memory, sweep
from probes.model.shelf import Shelf
from probes.request import library_versions

RESULTS = Path(__file__).with_name("RESULTS.md")
LENGTHS = {2048: "<= 1.2 GB"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf()
        rows = [*memory.rows(LENGTHS, folder), *capture.rows(shelf), *sweep.rows(shelf), *clicks.rows()]
    lines = ["| work | goal | measured |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    where = (
        f"{platform.machine()}, {torch.get_num_threads()} torch threads, Python {platform.python_version()}, {versions}"
    )
    text = (
        "# Benchmarks\n\nMade by `make bench`. P8: tokens that were not looked at before, so that Overview, Lens and Latents\n"
        "compute what they say of them (lens, attribution, direct effect) within the click. Ratios are ours / rival: median\n"
        "(smallest-largest) over 9 rounds in turn.\n\n"
    )
    text += f"{chr(10).join(lines)}\n\nMeasured on: {where}.\n"
    RESULTS.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
