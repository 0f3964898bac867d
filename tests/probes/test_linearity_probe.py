"""The linearity probe on a tiny model: maps fitted on other runs, the shown text held out, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.linearity import linearity, nonlinearity, score_on
from probes.errors import BadRequest
from probes.linearity import Params, run
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.probe import Context, Result
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.captured import capture_of
from tests.probes.test_geometry import LONG

OTHERS = {"a": LONG[::-1], "b": LONG.upper()}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def answered(model: LoadedModel, texts: dict[str, str], mask: str = "no_bos") -> tuple[Result, Capture, list[Capture]]:
    corpus = {name: capture_of(model, text) for name, text in texts.items()}
    shown = capture_of(model)
    context = Context(mask, {}, Progress(), corpus.__getitem__)
    return run(shown, Params(tuple(corpus)), context), shown, list(corpus.values())


def test_scores_are_of_the_corpus_and_the_text_is_held_out(model: LoadedModel) -> None:
    result, shown, corpus = answered(model, OTHERS)
    rows = result.tables["layer_metrics"].set_index(["layer", "metric"])
    keep = [one.mask("no_sink") for one in corpus]
    x, y = (torch.cat([one.resid(p)[k] for one, k in zip(corpus, keep, strict=True)]) for p in (1, 2))
    fit = linearity(x, y)
    assert fit.map is not None
    assert rows.loc[(2, "linearity@no_sink"), "value"] == pytest.approx(fit.score.value, rel=1e-12)
    assert rows.loc[(2, "linearity@no_sink"), "n_used"] == len(x)
    assert rows.loc[(2, "linearity_update@no_sink"), "value"] == pytest.approx(fit.update_score.value, rel=1e-12)
    assert rows.loc[(2, "linearity_chance@no_sink"), "value"] == pytest.approx(fit.rank / (len(x) - 1))
    mine = shown.mask("no_sink")
    here, there = shown.resid(1)[mine], shown.resid(2)[mine]
    held_out = score_on(fit.map, here, there).value
    assert rows.loc[(2, "linearity_held_out@no_sink"), "value"] == pytest.approx(held_out)
    residual = (here.double() - fit.map.mean_x) @ fit.map.weight + fit.map.mean_y - there.double()
    update = there.double() - here.double()
    expected = 1 - residual.square().sum() / (update - update.mean(dim=0)).square().sum()
    assert rows.loc[(2, "linearity_update_held_out@no_sink"), "value"] == pytest.approx(float(expected))
    tokens = result.tables["token_metrics"].query("layer == 2 and metric == 'nonlinearity@no_sink'").sort_values("pos")
    errors = np.full(shown.n_tokens, np.nan)
    errors[mine.numpy()] = nonlinearity(fit.map, here, there)[0].numpy()
    np.testing.assert_allclose(tokens["value"], errors)
    assert set(tokens.loc[tokens["value"].isna(), "status"]) == {"not_applicable"}


def test_the_shown_text_is_left_out_of_its_own_corpus(model: LoadedModel) -> None:
    alone, _, _ = answered(model, OTHERS)
    with_it, _, _ = answered(model, {**OTHERS, "itself": tiny.TEXT})
    assert alone.notes == ()
    assert "left out of the fit" in with_it.notes[0]
    assert alone.tables["layer_metrics"].equals(with_it.tables["layer_metrics"])
    with pytest.raises(BadRequest, match="other texts than the shown one"):
        answered(model, {"itself": tiny.TEXT})


def test_below_four_tokens_a_dimension_nothing_is_said(model: LoadedModel) -> None:
    result, _, _ = answered(model, {"few": tiny.TEXT[:90]})
    for table in result.tables.values():
        assert table["value"].isna().all()
        assert set(table["status"]) == {"too_few_tokens"}


def test_a_corpus_of_another_model_is_refused(model: LoadedModel) -> None:
    shown, other = capture_of(model), capture_of(model, LONG)
    strange = replace(other, model=tiny.loaded("llama", num_hidden_layers=2))
    context = Context("all", {}, Progress(), lambda _: strange)
    with pytest.raises(BadRequest, match="a corpus of runs of tiny-llama in float32 without edits"):
        run(shown, Params(("x",)), context)


def test_it_reads_stored_runs_and_refuses_what_is_none(runner: Runner, model: LoadedModel) -> None:
    def request(text: str, call: ProbeCall) -> RunRequest:
        return RunRequest(model.facts.name, text_ids(model, text), (call,))

    ids = [runner.run(request(text, ProbeCall("tokens"))).info.run_id for text in OTHERS.values()]
    made = runner.run(request(tiny.TEXT, ProbeCall("linearity", {"corpus": ids})))
    direct, _, _ = answered(model, OTHERS, "all")
    values = made.table("layer_metrics").set_index(["layer", "metric"])["value"].sort_index()
    expected = direct.tables["layer_metrics"].set_index(["layer", "metric"])["value"].sort_index()
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    with pytest.raises(BadRequest, match="holds no run"):
        runner.run(request(tiny.TEXT, ProbeCall("linearity", {"corpus": ["0" * 32]})))
    for corpus in ([], ["a", "a"], [3]):
        with pytest.raises(BadRequest, match=r"linearity\.corpus must be ids of different runs"):
            request(tiny.TEXT, ProbeCall("linearity", {"corpus": corpus}))
