"""The page Geometry over real runs of a tiny model: what is drawn, and what the shuffles are."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from app.geometry import GEOMETRY, ORDERS, n_shuffles_left, shuffle_job, shuffled
from app.panels.panel import Click
from app.panels.registry import panel
from app.selection import Selection
from app.services import Services
from app.set_geometry import metric_of_set
from app.view import View
from probes.prompts.library import import_set
from probes.prompts.sets import read_set
from probes.runner import RunResult
from tests.app.fakes import told
from tests.app.real_runs import Open, opener, panels, press, ran, services_over, settled
from tests.probes.test_geometry import LONG

PROMPTS = "".join(
    json.dumps({"id": f"p{n}", "text": f"{n} {LONG[n : n + 120 + n]}", "group": "ab"[n % 2]}) + "\n" for n in range(32)
)
DRAWN = {"geometry-dimension", "geometry-scale", "geometry-overlap", "geometry-matrix", "geometry-cosine"}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services_over(tmp_path_factory.mktemp("home")) as made:
        import_set(made.store, read_set("own", PROMPTS.encode(), "own.jsonl", "own.jsonl"))
        yield made


@pytest.fixture(scope="module")
def run(held: Services) -> RunResult:
    return ran(held, LONG)


@pytest.fixture
def open_page(held: Services) -> Iterator[Open]:
    with opener(held) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.components.keeping.local", lambda: True)
        patch.setattr("app.views.geometry.local", lambda: True)
        yield opened


def view_of(held: Services, run: RunResult) -> View:
    return View(held, run, Selection(2, 5))


def test_the_page_draws_the_text_then_its_shuffles(held: Services, run: RunResult, open_page: Open) -> None:
    app = open_page("geometry", run, point="2")
    assert panels(app) >= DRAWN
    assert "Dimension by scale, point 2" in told(app)
    assert "repeat another exactly: more than a fifth, so no dimension." in told(app)
    app = settled(press(app, "Run 10 shuffled texts"), held)
    assert n_shuffles_left(view_of(held, run)) == 0
    assert "At its peak, point" in told(app)
    assert "5 shuffles" in told(app)
    assert not [button for button in app.button if button.label.endswith("shuffled texts")]
    app.segmented_control(key="geometry-shuffle").set_value("none").run()
    assert "5 shuffles" not in told(app)


def test_a_short_text_says_what_is_missing(held: Services, open_page: Open) -> None:
    app = open_page("geometry", ran(held, "The mill."))
    assert "distances take 100, and 256 to be trusted" in told(app)
    assert "geometry-cosine" in panels(app)
    assert "geometry-dimension" not in panels(app)


def test_shuffled_identical_tokens_are_the_text_itself(held: Services) -> None:
    view = view_of(held, ran(held, "a" * 40))
    shuffle_job(view).wait(60)
    own = held.runner.run(view.info.request.with_probes(GEOMETRY)).table("layer_metrics")
    real = own[own["metric"] == "cosine@no_sink"].set_index("layer")["value"]
    for order in ORDERS:
        band = shuffled(view, order)
        cosine = band[band["metric"] == "cosine@no_sink"].set_index("layer")
        assert (cosine["low"] == real).all()
        assert (cosine["high"] == real).all()


def test_a_click_on_the_matrix_selects_its_row(held: Services, run: RunResult) -> None:
    view = view_of(held, run)
    held.runner.run(view.info.request.with_probes(GEOMETRY))
    drawn = panel("geometry-matrix").draw(view)
    assert drawn.picked(Click(1, 3)) == {"point": 3}


def test_maps_and_losses_are_of_a_set_that_was_run(held: Services, run: RunResult, open_page: Open) -> None:
    app = open_page("geometry", run, point="2")
    app.segmented_control(key="geometry-part").set_value("linearity").run()
    app.selectbox(key="geometry-set").set_value("own").run()
    assert "0 of 32 prompts run" in told(app)
    assert not panels(app) & {"geometry-linearity", "geometry-loss"}
    app = settled(press(app, "Run 32 prompts"), held)
    assert "32 of 32 prompts run" in told(app)
    app = settled(press(app, "Fit the linear maps of all blocks"), held)
    assert panels(app) >= {"geometry-linearity", "geometry-nonlinearity"}
    assert "128 needed" in told(app)
    assert "Blank: position" in told(app)
    app.segmented_control(key="geometry-part").set_value("recall").run()
    app = settled(press(app, "Fit the recall of words before"), held)
    assert "geometry-recall" in panels(app)
    assert "over 32 texts, five folds of whole texts." in told(app)
    app.segmented_control(key="geometry-part").set_value("loss").run()
    assert panels(app) >= {"geometry-loss", "geometry-loss-dots"}
    assert "32 prompts. Partial: after number of tokens and type/token ratio, on ranks." in told(app)
    assert "Points 0: fewer than 30 prompts have the number." in told(app)


def test_the_correlation_is_over_prompts(held: Services, run: RunResult) -> None:
    found = metric_of_set(view_of(held, run), "own", "cosine")
    assert found.values.shape == (32, 4)
    expected = stats.spearmanr(found.values[:, 2], found.prompts["loss"]).statistic
    assert found.table["spearman"][2] == pytest.approx(expected)
    losses = []
    for n in (0, 31):
        job = ran(held, json.loads(PROMPTS.splitlines()[n])["text"])
        losses.append(job.table("token_metrics").query("metric == 'nll'")["value"].mean())
    np.testing.assert_allclose(found.prompts["loss"].to_numpy()[[0, 31]], losses, rtol=1e-5)
