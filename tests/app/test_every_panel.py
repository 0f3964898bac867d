"""Every panel on a real run of the embedded model: it draws, its files open, and its numbers are those of the store."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from analysis.latent_index import IndexRules
from analysis.loss_correlation import MIN_PROMPTS
from analysis.prediction import compare_predictors
from app.bundles import make_item
from app.groups import GroupAsk, matched_ask, matched_length
from app.items import item_view
from app.panels.panel import Drawn, Panel
from app.panels.registry import panels
from app.predicting import keep_prediction, prediction_document
from app.report.pictures import FORMATS, picture
from app.sae_compare import absorption_document, compare_job
from app.selection import Selection
from app.services import Services
from app.story import largest_birth, make_plan
from app.text import csv_bytes
from app.view import Gap, View
from cache import TABLES, Store
from probes.claims.claim import Outcome
from probes.claims.registry import claims
from probes.claims.running import Finding
from probes.model.catalog import EMBEDDED
from probes.model.shelf import Shelf
from probes.model.tokenise import pieces, text_ids
from probes.predicting import Predicted
from probes.progress import Progress
from probes.prompts import bank, examples
from probes.prompts.library import find_set, import_set
from probes.prompts.sets import read_set
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from probes.saes.config import WEIGHTS
from probes.saes.folder import InstalledSAE, SAEInfo, content_digest, read_info
from probes.saes.index import index_sae, store_index
from probes.saes.loading import choose, load_sae
from probes.saes.quality import check_sae, store_quality
from probes.saes.sequences import FileText, TextSequence
from probes.saes.spelling import SpellingRequest, measure_absorption
from probes.set_sweep import SetAsk, sweep_set
from probes.trials import Target
from tests import tiny_saes

pytestmark = pytest.mark.model

TOKENS = 112  # alpha over the ranks 11 to 100 needs them
FEW = 34  # for what runs the model once a head or a position; sinks need 32
LONG = {
    "interventions-heads",
    "compare-patching",
    *(panel.key for panel in panels() if panel.key.startswith(("story-", "steer-"))),
}
UNDRAWN = {
    "compare-massive-lives-d": "lives are spans",
    "response-shift": "a run whose text was given whole has no response",
    "response-growth": "likewise",
}


@pytest.fixture(scope="module")
def services(shelf: Shelf, embedded: object) -> Iterator[Services]:
    with Store.open(":memory:") as store:
        yield Services(store, shelf, Runner(store, shelf), computes=True)


@pytest.fixture(scope="module")
def view(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """The run of the first tokens of the example; panels compute what they miss."""
    found = two_runs(services, TOKENS)[0]
    sae = index_and_measure(services, found.result)
    part = read_info(part_of(sae, tmp_path_factory.mktemp("saes") / "part"))
    both = tuple(InstalledSAE(info.name, info.folder, info, None) for info in (sae, part))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.quality.installed_saes", lambda: both)
        compare_and_spell(services, sae, part)
        hold_a_claim(services, found)
        predict_planted(services, found)
        yield found


@pytest.fixture(scope="module")
def short(services: Services) -> View:
    """The same of few tokens."""
    return two_runs(services, FEW)[0]


def two_runs(services: Services, count: int) -> tuple[View, str]:
    """A run of the example's first tokens with its whole lens, and the id of the run whose last token is another."""

    def made() -> tuple[View, str]:
        ids = text_ids(services.shelf.get(EMBEDDED), examples()[0].text)[:count]
        lens = ProbeCall("lens", {"positions": "all"})
        other, run = (
            services.runner.run(RunRequest(EMBEDDED, tokens, DEFAULT_PROBES)) for tokens in ((*ids[:-1], ids[5]), ids)
        )
        for one in (other, run):
            services.runner.run(one.info.request.with_probes(lens))
        read = run.table("token_metrics").query("metric == 'lens_kl'")["pos"].unique()  # a sample of them
        position = int(read[len(read) // 2])
        latent = int(run.table("latents").query("pos == @position")["latent"].iloc[0])
        return View(services, run, Selection(18, position, 3, 507, latent)), other.info.run_id

    found: tuple[View, str] = services.memo.get(("two runs", count), made)
    return found


def index_and_measure(services: Services, run: RunResult) -> SAEInfo:
    """An index of the run's own SAE over a few texts, the run's own among them, with what needs many tokens let in; and
    its quality on them."""
    model = services.shelf.get(EMBEDDED)
    name = str(run.table("latents")["sae"].iloc[0])
    sae = load_sae(choose(name, model.facts), model.facts)
    texts = [TextSequence("bank", one.id, text_ids(model, one.text)[:TOKENS]) for one in bank()[:6]]
    own = TextSequence("run", "own", run.info.request.token_ids)
    rules = IndexRules(min_seen=1, coactive_least=10, coactive_fired=1)
    store_index(services.store, index_sae(model, sae, [own, *texts], "a few passages", rules))
    store_quality(services.store, check_sae(model, sae, texts, loss_tokens=0))
    return sae.info


def part_of(sae: SAEInfo, folder: Path) -> Path:
    """An SAE of the first 256 latents of another."""
    weights = load_file(sae.folder / WEIGHTS)
    tiny_saes.make(folder, "topk", sae.d_in, 256, sae.hook_name)
    cut = {"W_enc": weights["W_enc"][:, :256], "W_dec": weights["W_dec"][:256], "b_enc": weights["b_enc"][:256]}
    parts = {**cut, "b_dec": weights["b_dec"]}
    return tiny_saes.edit_weights(folder, **{name: part.float().contiguous() for name, part in parts.items()})


def compare_and_spell(services: Services, sae: SAEInfo, part: SAEInfo) -> None:
    """A comparison of the two on a text of the bank, and the letters of a few words."""
    text = FileText("bank", "one", "\n".join(one.text for one in bank()[:2]))
    job = compare_job(services, (EMBEDDED, "float32", "auto"), sae, part, text)
    assert job.wait(300)
    assert job.error is None
    model = services.shelf.get(EMBEDDED)
    found = measure_absorption(model, load_sae(sae, model.facts), SpellingRequest(words=50, shots=1), Progress())
    document = absorption_document(found, sae.name, EMBEDDED)
    services.store.put_answer("absorption", content_digest(sae.folder), "", model.facts.fingerprint, document)


def two_groups(services: Services) -> int:
    """The set ``pairs`` of few short prompts in two groups, run whole and at the matched length that is returned."""

    def made() -> int:
        texts = [one.text.split(". ")[0] for one in bank()[:8]]
        lines = [{"id": f"p{n}", "text": text, "group": "ab"[n % 2]} for n, text in enumerate(texts)]
        import_set(services.store, read_set("pairs", "\n".join(map(json.dumps, lines)).encode(), "pairs", "pairs"))
        asked = SetAsk(find_set(services.store, "pairs"), RunRequest(EMBEDDED, (0,), DEFAULT_PROBES))
        sweep_set(services.runner, services.shelf, asked, Progress())
        n = min(matched_length(services, GroupAsk(asked, "a", "b")), 8)
        sweep_set(services.runner, services.shelf, matched_ask(asked, n), Progress())
        return n

    found: int = services.memo.get("two groups", made)
    return found


def predict_planted(services: Services, view: View) -> None:
    """A kept prediction of an imported set, of planted features."""
    rng = np.random.default_rng(0)
    right = np.arange(60) % 3 == 0
    features = {"alpha by point": (rng.normal(size=(60, 4)) + right[:, None])[:, :, None]}
    baselines = {"tokens": rng.normal(size=(60, 1))}
    table = compare_predictors(features, baselines, right, np.arange(60), shuffles=2)
    prompts = find_set(services.store, "factual-reasoning")
    ids = tuple(str(place) for place in range(60))
    found = Predicted(ids, right, "ok", table, 32, None, ("group",))
    keep_prediction(services, view.facts, prompts, prediction_document(found, EMBEDDED, prompts, False))


def hold_a_claim(services: Services, view: View) -> None:
    """An outcome of a claim on the model of the run."""
    claim = claims()[0]
    outcome = Outcome("holds", "Because.", -0.2, -0.3, -0.1, "alpha", 0.01, "a null", 128)
    document = Finding(
        claim, outcome, view.info.model, claim.prompts, find_set(services.store, claim.prompts).set_id, False, 0, 1.0
    ).as_document()
    services.store.put_answer("claim", "planted", claim.name, view.facts.fingerprint, document)


def short_passages(services: Services) -> str:
    """The name of a set of as many texts as a correlation takes, cut to what has a dimension and fills a linear map."""
    model = services.shelf.get(EMBEDDED)
    cut = ["".join(pieces(model.tokenizer, text_ids(model, one.text))[1 : TOKENS + 1]) for one in bank()[:MIN_PROMPTS]]
    lines = [json.dumps({"id": str(place), "text": text}) for place, text in enumerate(cut)]
    made = read_set("short", "\n".join(lines).encode(), "the bank, cut", "the bank, cut")
    import_set(services.store, made)
    return made.name


def drawn(view: View, panel: Panel) -> Drawn:
    params: dict[str, object] = {}
    if panel.page == "groups":
        params |= {"prompts": "pairs", "first": "a", "second": "b", "n": two_groups(view.services)}
        params |= {"other": EMBEDDED} if "other" in panel.options else {}
    elif panel.page == "predict":
        params["prompts"] = "factual-reasoning"
    elif "prompts" in panel.options and panel.page != "claims":
        params["prompts"] = short_passages(view.services)
    if "b" in panel.options:
        params["b"] = two_runs(view.services, view.info.n_tokens)[1]
    if "target" in panel.options and panel.page != "compare":
        target = Target("head", 17, head=3)
        params |= {"target": {"kind": target.kind, "layer": target.layer, "head": target.head}, "how": "zero"}
    if "steer" in panel.options:
        sae = str(view.table("latents")["sae"].iloc[0])
        params["steer"] = {"sae": sae, "latent": view.selection.latent, "control": 9, "typical": 20.0, "tokens": 4}
    return panel.draw(view, params)


@pytest.mark.parametrize("key", [panel.key for panel in panels() if panel.key not in UNDRAWN])
def test_a_panel_draws_its_files_open_and_its_numbers_are_the_stores(view: View, short: View, key: str) -> None:
    panel = next(one for one in panels() if one.key == key)
    made = drawn(short if key in LONG else view, panel)
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
    for name in TABLES:
        if list(table.columns) == list(view.result.table(name).columns):
            whole, rows = everything(view.services, name)
            mine = table.astype(whole.dtypes.to_dict())
            assert {tuple(map(str, row)) for row in mine.itertuples(index=False, name=None)} <= rows, name


def everything(services: Services, name: str) -> tuple[pd.DataFrame, set[tuple[str, ...]]]:
    """All rows of a result table in the store, as a table and as a set of texts."""
    runs = [str(one) for one in services.store.runs()["run_id"]]

    def read() -> tuple[pd.DataFrame, set[tuple[str, ...]]]:
        whole = pd.concat([services.store.table(run, name) for run in runs], ignore_index=True)
        return whole, {tuple(map(str, row)) for row in whole.itertuples(index=False, name=None)}

    found: tuple[pd.DataFrame, set[tuple[str, ...]]] = services.memo.get(("everything", name, len(runs)), read)
    return found


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
