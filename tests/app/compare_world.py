"""Two tiny SAEs of one model, really compared, and a model that spells or does not: what the page Compare SAEs stands on."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.quality import fitting
from app.sae_compare import absorption_document, compare_job, compared
from app.services import Services
from cache import Store
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.runner import Runner
from probes.saes.folder import content_digest, read_info
from probes.saes.loading import load_sae
from probes.saes.sequences import FileText
from probes.saes.spelling import SpellingRequest, measure_absorption
from tests import tiny, tiny_saes
from tests.app.fakes import FACTS
from tests.app.index_world import index_tables
from tests.probes.test_sae_compare import spelling_model

__all__ = ["REQUEST", "WIDE", "contents", "over", "put_index_of", "ran", "spelt", "two_saes"]

REQUEST = ("tiny-llama", "float32", "auto")
WIDE = "two _by_ @me"


def two_saes(home: Path) -> Path:
    """Install two SAEs that fit the tiny model and the imagined run, and one that does not."""
    tiny_saes.make(home / "saes" / "one", "standard")
    tiny_saes.make(home / "saes" / WIDE, "standard", d_sae=96)
    tiny_saes.make(home / "saes" / "other model", d_in=64)
    return home


@contextmanager
def over(store: Store) -> Iterator[Services]:
    """Real services with the tiny model."""
    shelf = Shelf()
    shelf.put(tiny.loaded("llama"))
    made = Services(store, shelf, Runner(store, shelf))
    yield made
    made.desk.close()


@cache
def spelt(told: bool) -> dict[str, Any]:
    """What is found of absorption in a model that spells, or in one that does not."""
    model = spelling_model(told)
    with TemporaryDirectory() as folder:
        made = tiny_saes.make(Path(folder) / "sae", hook="blocks.0.hook_resid_pre")
        sae = load_sae(read_info(made), model.facts)
        return absorption_document(measure_absorption(model, sae, SpellingRequest(), Progress()), "sae", "tiny")


def contents() -> tuple[str, str]:
    infos = fitting(FACTS)
    return content_digest(infos["one"].folder), content_digest(infos[WIDE].folder)


def put_index_of(store: Store, content: str) -> None:
    """An index without labels of its own: labels are shown of SAEs that have one."""
    tables = index_tables()
    tables["sae_latents"]["label"] = None
    row = {
        "sae": "any", "content": content, "fingerprint": FACTS.fingerprint, "model": FACTS.name, "layer": 2, "corpus": "own",
        "n_sequences": 6, "context": 48, "n_tokens": 200_000, "n_left_out": 6, "seed": 0, "params": {},
    }  # fmt: skip
    store.put_sae_index(row, tables)


def ran(held: Services, text: FileText | None = None) -> dict[str, Any]:
    """The document of a comparison of the two on the tiny model."""
    facts = tiny.loaded("llama").facts
    infos = fitting(facts)
    job = compare_job(held, REQUEST, infos["one"], infos[WIDE], text)
    assert job.wait(120)
    assert job.error is None
    found = compared(held, facts, "one", WIDE)
    assert found is not None
    return dict(found.document)
