"""Comparing SAEs: the jobs, what the store keeps of them, and the panels of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.figures.sae_compare import children_bars, match_histogram
from app.panels.registry import panel
from app.quality import fitting
from app.sae_compare import absorbed, absorption_job, absorption_key, compare_job, compare_key, compared
from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.saes.sequences import FileText
from tests import tiny, tiny_saes
from tests.app.compare_world import REQUEST, WIDE, contents, over, ran, spelt, two_saes
from tests.app.fakes import FACTS, fake_result, fake_services
from tests.app.rich_run import whole

PANELS = ("saes-matches", "saes-geometry", "saes-splitting", "saes-absorption")


@pytest.fixture
def home(empty_home: Path) -> Path:
    return two_saes(empty_home)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def held(store: Store, home: Path) -> Iterator[Services]:
    with over(store) as made:
        yield made


def test_a_comparison_is_stored_and_found_again(held: Services, home: Path) -> None:
    facts = tiny.loaded("llama").facts
    assert compared(held, facts) is None
    document = ran(held, FileText("file", "own.txt", tiny.TEXT * 8))
    assert document["corpus"].startswith("own.txt, ")
    assert document["compare"]["n_matched"] == len(document["matches"]) > 50
    assert document["splitting"]["narrow"] == "one"
    assert ran(held)["corpus"].startswith("built-in texts, ")  # in place of the first
    assert len(held.store.answers("compare", facts.fingerprint)) == 1
    assert compared(held, facts, WIDE, "one") is None  # matching is of B in A: another question
    (home / "saes" / "one").rename(home / "saes" / "renamed")
    newest = compared(held, facts)
    assert newest is not None
    assert [sae.name for sae in newest.saes] == ["renamed", WIDE]
    assert [sae.name for sae in newest.by_width] == ["renamed", WIDE]
    tiny_saes.edit_config(home / "saes" / WIDE, metadata={"training_tokens": 5})
    assert compared(held, facts) is None  # it is another SAE now


def test_what_cannot_be_compared_is_told_and_nothing_is_stored(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tiny.loaded("llama").facts
    infos = fitting(facts)
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    job = compare_job(held, REQUEST, infos["one"], infos[WIDE])
    assert job.wait(60)
    assert "Comparing 64 with 96 latents needs" in str(job.error)
    assert held.desk.get(compare_key("tiny-llama", "one", WIDE)) is job
    job = absorption_job(held, REQUEST, infos["one"])
    assert job.wait(60)
    assert "its spelling cannot be asked for" in str(job.error)
    assert held.desk.get(absorption_key("tiny-llama", "one")) is job
    assert compared(held, facts) is None
    assert absorbed(held, facts) is None


def a_view(store: Store) -> View:
    held = fake_services(fake_result())
    held.store = store
    return View(held, held.runner.result, Selection(3, 4))  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", PANELS)
def test_every_panel_has_figure_and_table_or_says_why_not(held: Services, key: str) -> None:
    view = a_view(held.store)
    gap = panel(key).draw(view)
    assert gap.fig is None
    assert " yet." in str(gap.note)
    document = ran(held)
    one, wide = contents()
    rows = [{"latent": 3, "child": 5, "cosine": 0.9, "correlation": 0.5}]
    held.store.put_answer("compare", one, wide, FACTS.fingerprint, document | {"children": rows})
    held.store.put_answer("absorption", one, "", FACTS.fingerprint, spelt(True))
    whole(view, panel(key).draw(view), clickable=False)
    named = {"sae": "one"} if key == "saes-absorption" else {"sae": "one", "other": WIDE}
    assert panel(key).draw(view, named).fig is not None
    assert panel(key).draw(view, {**named, "sae": "gone"}).fig is None


def test_scores_that_are_not_given_leave_a_gap_with_the_reason(held: Services) -> None:
    document = ran(held)
    one, wide = contents()
    none = {"value": None, "n_used": 4, "status": "not_applicable"}
    bare = document["compare"] | dict.fromkeys(("rsa", "rsa_null", "rsa_p"), none) | {"n_pairs": 4}
    held.store.put_answer("compare", one, wide, FACTS.fingerprint, document | {"compare": bare, "matches": []})
    view = a_view(held.store)
    gap = panel("saes-geometry").draw(view)
    assert gap.fig is None
    assert "SVCCA is not given: 4 pairs are fewer than" in str(gap.note)
    assert "RSA is not given: it needs at least 10 pairs, not 4." in str(gap.note)
    assert "can be matched" in str(panel("saes-matches").draw(view).note)


def test_the_histogram_counts_every_match_once() -> None:
    r = np.array([-0.2, 0.0, 0.05, 0.5, 0.99, 1.0])
    fig = match_histogram(r, np.array([False, False, False, True, True, True]))
    assert [int(sum(trace.y)) for trace in fig.data] == [3, 3]
    children = pd.DataFrame({"latent": [1, 1, 2, 3, 3], "child": range(5)})
    (bars,) = children_bars(children).data
    assert dict(zip(bars.x.tolist(), bars.y.tolist(), strict=True)) == {1: 1, 2: 2}
