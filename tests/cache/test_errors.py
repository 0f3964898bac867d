from pathlib import Path

import duckdb
import pytest

from cache.errors import (
    RunAbsent,
    SessionAbsent,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreUnavailable,
    TensorAbsent,
    from_duckdb,
)

FILE = Path("/somewhere/store.duckdb")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            'IO Error: Could not set lock on file "x": Conflicting lock is held in python (PID 7453). See also',
            StoreLocked,
        ),
        ("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block", StoreDamaged),
        ('IO Error: Could not read enough bytes from file "x"', StoreDamaged),
        ('IO Error: The file "x" exists, but it is not a valid DuckDB database file!', StoreDamaged),
        ("IO Error: Trying to read a database file with storage version number 70, but we can only", StoreNewer),
        ('FATAL Error: Failed to create checkpoint: Could not write file "x": No space left on device', StoreFull),
        ('IO Error: Cannot open file "x": Permission denied', StoreUnavailable),
        ("Binder Error: something else", StoreError),
    ],
)
def test_duckdbs_messages_become_the_stores_errors(message: str, kind: type[StoreError]) -> None:
    assert type(from_duckdb(duckdb.IOException(message), FILE)) is kind


def test_what_the_system_said_is_told_without_file_names() -> None:
    known = from_duckdb(duckdb.IOException('IO Error: Cannot open file "/other/name": Permission denied'), FILE)
    assert "/somewhere/store.duckdb cannot be used (permission denied)" in str(known)


def test_the_holder_of_the_lock_is_named_with_a_way_out() -> None:
    known = from_duckdb(duckdb.IOException("Could not set lock on file (PID 7453)"), FILE)
    assert isinstance(known, StoreLocked)
    assert known.pid == 7453
    for part in (str(FILE), "7453", "--store FILE", "--store :memory:"):
        assert part in str(known)


@pytest.mark.parametrize(
    "error",
    [
        StoreLocked(FILE, None),
        StoreDamaged(FILE, "it is empty"),
        StoreForeign(FILE),
        StoreNewer(FILE, "schema 9", "schema 1"),
        StoreUnavailable(FILE, "permission denied"),
        StoreFull(FILE, "no space"),
        StoreClosed(FILE),
        RunAbsent("r" * 1000),
        SessionAbsent("s\ud800" * 1000),
        TensorAbsent("c0", "resid.1", "damaged", "its checksum differs"),
    ],
)
def test_each_error_is_one_short_sentence(error: StoreError) -> None:
    sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert sentence[0].isupper()
    assert len(sentence) < 320


def test_absent_things_are_key_errors_that_read_well() -> None:
    with pytest.raises(KeyError) as caught:
        raise TensorAbsent("c0", "resid.1", "missing")
    assert str(caught.value) == "The tensor 'resid.1' of 'c0' is not stored; it has to be computed again."
    assert caught.value.reason == "missing"
