"""Faults 25 and 27: bundles with hostile names, tampered members, other versions and deep JSON. Each is one sentence, and
the store is to the byte what it was."""

import io
import json
import random
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from cache import Store, canonical_json
from cache.bundle_format import BundleRefused
from cache.bundle_read import read_bundle
from tests.cache.bundles import check_refused, export, forged, members_of, shared, zipped

NAMES = (
    "../manifest.json", "../../etc/passwd", "tables/../../x.parquet", "tables/../runs.parquet", "./manifest.json",
    "/etc/passwd", "//server/share/x", "\\\\server\\share\\x", "C:\\windows\\x", "C:manifest.json", "c:/manifest.json",
    "tables\\runs.parquet", "..\\..\\x", "tables/", "tables/runs.parquet/", "tables//runs.parquet", "CON", "NUL", "aux.txt",
    "tables/COM1.parquet", "LPT1", "manifest.json\0.txt", "tables/runs.parquet\0", "\0\0\0\0", "MANIFEST.JSON", "manifest.json ",
    "tables/runs.parquet.", "tables/sessions.parquet", "tables/meta.parquet", "tensors.pkl", "data.pkl", "__init__.py",
    "tables/runs.csv", "~/x", "%2e%2e/x", "tables/․․/x", "file:///etc/passwd", "tables/runs.parquet:stream", "\x1b[31m",
)  # fmt: skip

Refused = Callable[[bytes, str], None]


@pytest.fixture(scope="module")
def sound() -> bytes:
    with Store.open(":memory:") as store:
        return export(store, shared(store))


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with other content under the same ids."""
    with Store.open(tmp_path_factory.mktemp("store") / "store.duckdb") as store:
        shared(store, seed=1)
        yield store


@pytest.fixture
def refused(keeper: Store) -> Refused:
    return partial(check_refused, keeper)


def named(value: object) -> str:
    """The name of a case: its sentence, never its bytes."""
    return value[:40] if isinstance(value, str) else "bytes"


def test_the_bundle_itself_is_read(sound: bytes) -> None:
    members = members_of(sound)
    assert read_bundle(io.BytesIO(forged(sound))).title == "Sinks é"
    assert read_bundle(io.BytesIO(zipped(members, zipfile.ZIP_DEFLATED))).title == "Sinks é"
    assert zipped(members) != sound


@pytest.mark.parametrize("name", NAMES)
def test_a_name_no_bundle_has_is_refused(sound: bytes, refused: Refused, name: str) -> None:
    raw = name.encode()
    for extra in (b"x", members_of(sound)["tables/runs.parquet"]):
        place = "p" * len(raw)
        content = forged(sound, manifest=lambda _: None)
        content = zipped({**members_of(content), place: extra}).replace(place.encode(), raw)
        refused(content, "has a member|two members")


def test_a_name_in_the_list_must_be_the_one_at_the_member(sound: bytes, refused: Refused) -> None:
    at = sound.index(b"tables/runs.parquet")
    assert at < sound.rindex(b"tables/runs.parquet")
    refused(sound[:at] + b"../../../runs.pickl" + sound[at + 19 :], "no whole bundle")


def test_two_members_of_one_name_are_refused(sound: bytes, refused: Refused) -> None:
    for name in ("manifest.json", "tables/runs.parquet"):
        place = "p" * len(name)
        content = zipped({**members_of(sound), place: b"other"}).replace(place.encode(), name.encode())
        refused(content, "two members of one name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_folders_and_devices_are_refused(sound: bytes, refused: Refused, kind: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members_of(sound).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((kind if name == "tables/runs.parquet" else stat.S_IFREG) | 0o777) << 16
            archive.writestr(info, data)
    refused(file.getvalue(), r"'tables/runs\.parquet' of the bundle is no plain file")


def test_encryption_and_other_packings_are_refused(sound: bytes, refused: Refused) -> None:
    directory = sound.index(b"PK\x01\x02")
    for bit, offset in ((0x1, 8), (0x40, 8), (0x20, 9)):
        content = bytearray(sound)
        content[directory + offset] |= bit
        refused(bytes(content), "is encrypted")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(zipped(members_of(sound), method), "neither stored nor deflated")


def test_what_is_no_bundle_is_refused(sound: bytes, refused: Refused) -> None:
    refused(b"", "no whole bundle")
    refused(b"PK", "no whole bundle")
    refused(b"dear bundle,\n" * 1000, "no whole bundle")
    refused(random.Random(0).randbytes(5000), "no whole bundle")
    refused(zipped({}), "has no manifest")
    refused(zipped({"tables/runs.parquet": b""}), "has no manifest")
    refused(sound[:-2] + b"\x03\x00abc", "no whole bundle|no comment")


def test_a_file_cut_short_is_refused(sound: bytes, refused: Refused) -> None:
    for length in (1, 21, 22, 100, len(sound) // 3, len(sound) // 2, len(sound) - 23, len(sound) - 1):
        refused(sound[:length], "no whole bundle|no bundle")
        refused(sound[-length:], "no whole bundle|no bundle|lies inside|has a member")


def test_a_flipped_bit_in_each_member_is_found(sound: bytes, refused: Refused) -> None:
    """Once as an accident, which the zip's own checksum finds, and once as if it had been packed so."""
    dice = random.Random(1)
    for name, data in members_of(sound).items():
        changed = bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        assert sound.count(data) == 1
        refused(sound.replace(data, bytes(changed)), "Bad CRC-32 for file")
        said = "manifest" if name == "manifest.json" else "its checksum differs"
        refused(zipped({**members_of(sound), name: bytes(changed)}), said)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(sound: bytes) -> None:
    """200 bits: dates and rights in the zip's headers mean nothing, everything else is found."""
    dice = random.Random(2)
    expected = summary(sound)
    refused = 0
    for _ in range(200):
        content = bytearray(sound)
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        try:
            assert summary(bytes(content)) == expected
        except BundleRefused:
            refused += 1
    assert refused > 130


def summary(content: bytes) -> tuple[object, ...]:
    bundle = read_bundle(io.BytesIO(content))
    tables = {name: table.to_pylist() for name, table in bundle.tables.items()}
    tensors = {key: (value.dtype, value.shape) for key, value in bundle.tensors.items()}
    return bundle.session_id, bundle.title, bundle.notes, bundle.updated, bundle.items, tables, tensors


def test_sizes_and_checksums_must_be_those_of_the_manifest(sound: bytes, refused: Refused) -> None:
    def wrong(**change: object) -> Callable[[dict[str, Any]], None]:
        return lambda told: told["members"]["tables/runs.parquet"].update(change)

    refused(forged(sound, manifest=wrong(blake2b="0" * 128)), "its checksum differs")
    refused(forged(sound, manifest=wrong(bytes=1)), "its checksum differs")
    refused(forged(sound, manifest=wrong(bytes=True)), "wrong type of 'bytes'")
    refused(forged(sound, manifest=lambda told: told["members"].pop("tables/runs.parquet")), "not those its manifest")
    missing = {name: data for name, data in members_of(sound).items() if name != "tables/tokens.parquet"}
    refused(zipped(missing), "not those its manifest")
    extra = {"bytes": 0, "blake2b": ""}
    refused(forged(sound, manifest=lambda told: told["members"].update({"../x": extra})), r"lists a member '\.\./x'")


def test_a_newer_format_is_refused_with_both_versions(sound: bytes, refused: Refused) -> None:
    for version in (2, 4000):
        said = f"has format {version:}, this program reads format 1: update the program"
        refused(forged(sound, manifest=lambda told, version=version: told.update(format=version, more={})), said)
        future = {"format": version, "tables/new.parquet": [1.50]}
        refused(zipped({"manifest.json": json.dumps(future, indent=1).encode(), "new": b""}), said)
    for version in (0, -1):
        refused(forged(sound, manifest=lambda told, v=version: told.update(format=v)), "there is only format 1")
    for version in ("1", None, True, [1], 1.5):
        refused(forged(sound, manifest=lambda told, v=version: told.update(format=v)), "wrong type of 'format'")


@pytest.mark.parametrize("depth", [65, 10_000, 3_000_000])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_deep_json_is_refused(sound: bytes, refused: Refused, depth: int, pair: str) -> None:
    inside = '{"a":' if pair == "{}" else "["
    refused(
        zipped({"manifest.json": (inside * depth).encode()}), f"is nested {depth:,} deep; at most 64|brackets, commas"
    )
    refused(zipped({"manifest.json": (inside * depth + "1" + pair[1] * depth).encode()}), "nested|brackets")
    if depth <= 10_000:
        item = canonical_json(json.loads(members_of(sound)["manifest.json"])["items"][0])
        deep = item.replace('"selection":{', '"selection":{"a":' + "[" * depth + "]" * depth + ",")
        manifest = members_of(sound)["manifest.json"].replace(item.encode(), deep.encode())
        refused(zipped({**members_of(sound), "manifest.json": manifest}), "deep; at most 64")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be an object with exactly format"),
        (b'{"format":NaN}', "NaN is no number"),
        (b'{"format":1e999}', "not canonical"),
        (b'{"format":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{ "format":1}', "not canonical"),
        (b'{"format":1,"format":1}', "not canonical"),
        (b'{"format":1}', "must be an object with exactly format, items, members, runs, session"),
        (b'"' * 5_000_000, "5,000,000 brackets, commas and quotes; at most 4,000,000"),
        (b"[" + b"[]," * 3_000_000 + b"[]]", "brackets, commas and quotes"),
        (b'"\\ud800"' * 3, "not valid JSON"),
    ],
    ids=named,
)
def test_a_manifest_that_is_none_is_refused(refused: Refused, text: bytes, said: str) -> None:
    refused(zipped({"manifest.json": text}), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["session"].update(share_id="x"), "in 'session', must be an object with exactly"),
        (lambda told: told["session"].update(title=3), "wrong type of 'title'"),
        (lambda told: told["session"].update(title="x" * 201), "The title has 201 characters"),
        (lambda told: told["session"].update(notes="\ud800"), "The notes is not valid Unicode"),
        (lambda told: told["session"].update(id="../x"), "session id '../x' does not fit"),
        (lambda told: told["session"].update(id=""), "session id '' does not fit"),
        (lambda told: told["session"].update(id="r0"), "one id for two things"),
        (lambda told: told["session"].update(created="2026-02-31T00:00:00.000000"), "'2026-02-31T.*for a date"),
        (lambda told: told["session"].update(updated="now"), "'now' for a date"),
        (lambda told: told["items"].append("x"), "in an item, must be an object"),
        (lambda told: told["items"][0].update(more=1), "in an item, must be an object"),
        (lambda told: told["items"][0].update(params=[]), "wrong type of 'params'"),
        (lambda told: told["items"][0].update(caption="\udc80"), "The caption of item 1 is not valid Unicode"),
        (lambda told: told["items"][0].update(run_id="r9"), "Item 1 of the bundle shows a run it does not carry"),
        (lambda told: told["items"].extend(told["items"] * 200), "has 603 items; a session has at most 500"),
        (lambda told: told["runs"]["r0"].update(model="gpt-5"), "tells something else of its runs"),
        (lambda told: told["runs"].pop("r0"), "Item 1 of the bundle shows|tells something else of its runs"),
        (lambda told: told["runs"].update(r9={}), "tells something else of its runs"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    sound: bytes, refused: Refused, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    refused(forged(sound, manifest=change), said)
