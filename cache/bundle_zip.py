"""The zip around a bundle, of unknown origin: looked at before it is believed, read member by member, never unpacked."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cache.bundle_format import (
    MANIFEST,
    MAX_BYTES,
    MAX_MEMBERS,
    MEMBERS,
    BundleRefused,
    Readable,
    check_sizes,
    reason_of,
)

__all__ = ["check_names", "entries_of", "read_member"]

MAX_RATIO = 100
_MAX_DIRECTORY = 1 << 16
_MAX_FILE = MAX_BYTES + (1 << 20)
_END = struct.Struct("<4s4H2LH")
_LOCATOR = 20
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PART = 1 << 16
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, ValueError)


@contextmanager
def entries_of(source: Readable) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The zip and its entries by their names as they are written in it. Raises BundleRefused, also for what goes wrong
    while they are read."""
    try:
        _check_end(source)
        with zipfile.ZipFile(source) as archive:
            yield archive, _checked(archive.infolist())
    except BundleRefused:
        raise
    except _BROKEN as error:
        raise BundleRefused(f"The file is no whole bundle ({reason_of(error)}).") from None


def check_names(entries: Mapping[str, zipfile.ZipInfo]) -> None:
    """Raises BundleRefused for a member that no bundle has: paths, drives, devices and all else."""
    for name in entries:
        if name not in MEMBERS:
            raise BundleRefused(
                f"The bundle has a member {name[:80]!r}; it may have {MANIFEST}, tables of the store and tensors."
            )


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, counted as they come. Raises BundleRefused for more than were announced."""
    data = bytearray()
    with archive.open(entry) as member:
        while part := member.read(_PART):
            data += part
            _check_ratio(entry, len(data))
            if len(data) > entry.file_size:
                raise BundleRefused(f"The member {entry.filename!r} of the bundle is longer than it says.")
    if len(data) != entry.file_size:
        raise BundleRefused(f"The member {entry.filename!r} of the bundle is shorter than it says.")
    return bytes(data)


def _check_end(source: Readable) -> None:
    """The record at the very end says how much there is to list: it is looked at before the list is read."""
    size = source.seek(0, 2)
    if size > _MAX_FILE:
        raise BundleRefused(f"The file has {size:,} bytes; a bundle has at most {_MAX_FILE:,}.")
    source.seek(max(0, size - _END.size - _LOCATOR))
    end = source.read(_END.size + _LOCATOR)
    source.seek(0)
    if len(end) < _END.size or end[-_END.size :][:4] != b"PK\x05\x06":
        raise BundleRefused("The file is no whole bundle (it does not end as a zip without comment does).")
    _, _, _, _, count, directory, _, comment = _END.unpack(end[-_END.size :])
    if end.startswith(b"PK\x06\x07") or comment:
        raise BundleRefused("The file is no bundle (a bundle has no comment and is no zip64).")
    if count > MAX_MEMBERS:
        raise BundleRefused(f"The bundle has {count:,} members; it may have at most {MAX_MEMBERS}.")
    if directory > _MAX_DIRECTORY:
        raise BundleRefused(
            f"The list of members of the bundle has {directory:,} bytes; at most {_MAX_DIRECTORY:,} are read."
        )


def _checked(listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Whatever the list says of sizes and kinds, before any member is opened."""
    if len(listed) > MAX_MEMBERS:
        raise BundleRefused(f"The bundle has {len(listed):,} members; it may have at most {MAX_MEMBERS}.")
    entries = {entry.orig_filename: entry for entry in listed}
    if len(entries) < len(listed):
        raise BundleRefused("The bundle has two members of one name.")
    for name, entry in entries.items():
        shown = repr(name[:80])
        if entry.flag_bits & _ENCRYPTED:
            raise BundleRefused(f"The member {shown} of the bundle is encrypted.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleRefused(f"The member {shown} of the bundle is neither stored nor deflated.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleRefused(f"The member {shown} of the bundle is no plain file.")
        _check_ratio(entry, entry.file_size)
    check_sizes({name: entry.file_size for name, entry in entries.items()})
    ends = 0
    for entry in sorted(listed, key=lambda entry: entry.header_offset):
        if entry.header_offset < ends:
            raise BundleRefused(f"The member {entry.orig_filename[:80]!r} of the bundle lies inside another.")
        ends = entry.header_offset + entry.compress_size
    return entries


def _check_ratio(entry: zipfile.ZipInfo, size: int) -> None:
    if size > MAX_RATIO * max(entry.compress_size, 1):
        raise BundleRefused(
            f"The member {entry.orig_filename[:80]!r} of the bundle unpacks to over {MAX_RATIO} times its size."
        )
