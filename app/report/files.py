"""Files that a command writes: named before the work is done, written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from probes.errors import BadRequest

__all__ = ["check_place", "suffix_of", "write_whole", "written_whole"]


def suffix_of(out: Path, known: Sequence[str]) -> str:
    """What a file to be written ends with, in lower case. Raises BadRequest where that is none of the known."""
    suffix = out.suffix.removeprefix(".").lower()
    if suffix not in known:
        raise BadRequest(f"--out must end with .{', .'.join(known)}, not {out.name[:80]!r}.")
    check_place(out)
    return suffix


def check_place(out: Path, option: str = "--out") -> None:
    """Raises BadRequest, before any work is done, where a file cannot be put."""
    if out.is_dir() or not out.parent.is_dir():
        raise BadRequest(f"{option} must name a file in a folder that exists, not {out}.")


def write_whole(out: Path, content: bytes) -> None:
    """Write a file as a whole, or leave what was there. Raises OSError."""
    with written_whole(out) as file:
        file.write(content)


@contextmanager
def written_whole(out: Path) -> Iterator[BinaryIO]:
    """A file that takes its place when the block ends, and only if it ends well. Raises OSError."""
    handle, part = tempfile.mkstemp(dir=out.parent, prefix=".", suffix=out.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, out)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
