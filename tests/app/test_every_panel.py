"""Every panel on a real run of the embedded model: it draws, its files open, and its numbers are those of the store."""

import io
from collections.abc import Iterator
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image

from app.bundles import make_item
from app.items import item_view
from app.panels.panel import Drawn, Panel
from app.panels.registry import panels
from app.report.pictures import FORMATS, picture
from app.selection import Selection
from app.services import Services
from app.story import largest_birth, make_plan
from app.text import csv_bytes
from app.view import Gap, View
from cache import TABLES, Store
from probes.model.catalog import EMBEDDED
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.prompts import examples
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.runner import Runner
from probes.trials import Target

pytestmark = pytest.mark.model

TOKENS = 72
# Asked for on pages by a button that says how long it takes; tests/app/test_panels_* draw them of imagined runs.
LONG = {"interventions-heads", "story-heads", "story-damage", "story-masked", "story-traces"}
SOME = ("compare-overview-d", "compare-sinks-sink-score-a", "compare-sinks-share-d", "compare-tokens-nll-b")
DRAWN = [
    panel.key
    for panel in panels()
    if panel.key not in LONG and (not panel.key.startswith("compare-") or panel.key in (*SOME, "compare-logits"))
]


@pytest.fixture(scope="module")
def view(shelf: Shelf, embedded: object) -> Iterator[View]:
    """The run of the first tokens of the example, with another to compare it with; panels compute what they miss."""
    with Store.open(":memory:") as store:
        services = Services(store, shelf, Runner(store, shelf), computes=True)
        ids = text_ids(shelf.get(EMBEDDED), examples()[0].text)[:TOKENS]
        other = services.runner.run(RunRequest(EMBEDDED, (*ids[1:], ids[5]), DEFAULT_PROBES))
        run = services.runner.run(RunRequest(EMBEDDED, ids, DEFAULT_PROBES))
        services.memo.get("other", lambda: other.info.run_id)
        lens = ProbeCall("lens", {"positions": "all"})
        services.runner.run(run.info.request.with_probes(lens))
        yield View(services, run, Selection(18, 41, 3, 507))


def drawn(view: View, panel: Panel) -> Drawn:
    params: dict[str, object] = {}
    if "b" in panel.options:
        params["b"] = view.services.memo.get("other", lambda: None)
    if "target" in panel.options and panel.page != "compare":
        target = Target("head", 17, head=3)
        params |= {"target": {"kind": target.kind, "layer": target.layer, "head": target.head}, "how": "zero"}
    return panel.draw(view, params)


@pytest.mark.parametrize("key", DRAWN)
def test_a_panel_draws_its_files_open_and_its_numbers_are_the_stores(view: View, key: str) -> None:
    panel = next(one for one in panels() if one.key == key)
    made = drawn(view, panel)
    assert made.fig is not None, made.note
    table = made.table()
    assert table is not None, "every plot has its numbers"
    assert len(table)
    read = pd.read_csv(io.BytesIO(csv_bytes(table)))
    assert len(read) == len(table)
    for name in table.columns[[pd.api.types.is_float_dtype(kind) for kind in table.dtypes]]:
        mine = table[name].reset_index(drop=True)
        pd.testing.assert_series_equal(read[str(name)].astype(mine.dtype), mine, check_names=False, rtol=0, atol=0)
    stored(view, table)
    for suffix in FORMATS:
        content = picture(made.fig, suffix)
        if suffix == "png":
            with Image.open(io.BytesIO(content)) as opened:
                assert opened.size[0] == 1800
                assert opened.convert("L").getextrema()[0] < 200, "something is drawn"
        elif suffix == "svg":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert content.startswith(b"%PDF")
            assert b"%%EOF" in content[-1024:]


def stored(view: View, table: pd.DataFrame) -> None:
    """Rows with the columns of a result table are rows of it, in this run or in an answer beside it."""
    runs = [str(one) for one in view.services.store.runs()["run_id"]]
    for name in TABLES:
        columns = list(view.services.store.table(view.info.run_id, name).columns)
        if list(table.columns) == columns:
            whole = pd.concat([view.services.store.table(run, name) for run in runs], ignore_index=True)
            rows = {tuple(map(str, row)) for row in whole.itertuples(index=False, name=None)}
            mine = table.astype(whole.dtypes.to_dict())
            assert {tuple(map(str, row)) for row in mine.itertuples(index=False, name=None)} <= rows, name


@pytest.mark.parametrize(
    "key", ["sinks-attention", "lens-map", "lens-parts", "spectra-rank", "latents-effect", "overview-layers"]
)
def test_an_item_of_a_session_draws_the_same_numbers_from_what_it_names(view: View, key: str) -> None:
    panel = next(one for one in panels() if one.key == key)
    item = make_item(panel, view, {})
    reading = Services(view.services.store, view.services.shelf, view.services.runner)
    again = item_view(reading, item)
    assert again is not None
    assert again.selection == view.selection
    first, second = panel.draw(view).table(), panel.draw(again).table()
    assert first is not None
    assert second is not None
    pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))


def test_the_story_can_be_planned_of_this_run(view: View) -> None:
    birth = largest_birth(view.result)
    assert birth is not None
    assert make_plan(view.services, view.result, birth).requests()
    with pytest.raises(Gap):
        View(
            Services(view.services.store, view.services.shelf, view.services.runner), view.result, view.selection
        ).answer(ProbeCall("pattern", {"block": 29}))
