"""The lens probe on tiny random models: its last point is the model, its rows are complete, its refusals are clear."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from probes import lens
from probes.errors import BadRequest
from probes.lens import Params, positions_of, run
from probes.model.bank import MeanBank
from probes.model.loaded import LoadedModel
from probes.probe import Context
from probes.progress import Progress
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of

ALL = Params(positions="all")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One empty home for the file, so that the mean bank of a tiny model is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENSCOPE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def values(frame: pd.DataFrame, metric: str, layer: int | None = None) -> np.ndarray:
    rows = frame[frame["metric"] == metric]
    rows = rows[rows["layer"].isna()] if layer is None else rows[rows["layer"] == layer]
    return rows.sort_values("pos")["value"].to_numpy() if "pos" in rows else rows["value"].to_numpy()


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_last_point_is_the_models_own_output(name: str) -> None:
    model = tiny.loaded(name)
    capture = capture_of(model)
    with torch.no_grad():
        logits = model.hf(capture.token_ids[None], use_cache=False).logits[0].float()
    result = run(capture, ALL, CONTEXT)
    last = model.facts.n_layers
    nll = torch.nn.functional.cross_entropy(logits[:-1], capture.token_ids[1:], reduction="none")
    np.testing.assert_allclose(values(result.tables["token_metrics"], "lens_ce", last)[:-1], nll, rtol=1e-4, atol=1e-4)
    top = result.tables["lens_topk"].query("layer == @last and variant == 'raw'").sort_values(["pos", "rank"])
    expected = torch.softmax(logits, -1).topk(10)
    np.testing.assert_allclose(top["prob"], expected.values.flatten(), rtol=1e-4, atol=1e-6)
    for metric in ("lens_kl", "lens_kl@mean", "lens_kl_reverse"):
        assert (values(result.tables["token_metrics"], metric, last) == 0).all()


def test_a_middle_point_is_final_norm_and_unembedding_of_its_state(model: LoadedModel) -> None:
    capture = capture_of(model)
    result = run(capture, ALL, CONTEXT)
    final = torch.log_softmax(model.unembed(capture.resid(3)), -1).double()
    read = torch.log_softmax(model.unembed(capture.resid(1)), -1).double()
    kl = (final.exp() * (final - read)).sum(-1)
    np.testing.assert_allclose(values(result.tables["token_metrics"], "lens_kl", 1), kl, rtol=1e-4, atol=1e-5)
    rank = 1 + (read[:-1] > read[:-1].gather(1, capture.token_ids[1:, None])).sum(-1)
    found = values(result.tables["token_metrics"], "lens_rank", 1)
    np.testing.assert_array_equal(found[:-1], rank)
    assert math.isnan(found[-1])


def test_mean_correction_uses_the_bank(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    means = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        LoadedModel, "mean_bank", lambda self, progress: MeanBank({}, {"resid": means}, 5000, 1, "a test")
    )
    capture = capture_of(model)
    result = run(capture, ALL, CONTEXT)
    corrected = torch.softmax(model.unembed(capture.resid(1) - means[1] + means[3]), -1)
    entropy = torch.special.entr(corrected.double()).sum(-1)
    np.testing.assert_allclose(values(result.tables["token_metrics"], "lens_entropy@mean", 1), entropy, rtol=1e-4)
    assert "Mean-corrected lens: means over 5,000 tokens (a test)." in result.notes


def test_without_norm_is_the_unembedding_alone_but_at_the_last_point(model: LoadedModel) -> None:
    capture = capture_of(model)
    result = run(capture, Params(positions="all", variants=("no_norm",)), CONTEXT)
    confidence = values(result.tables["token_metrics"], "lens_top1_nlp@no_norm", 2)
    logits = capture.resid(2) @ model.unembed_matrix().T
    np.testing.assert_allclose(confidence, -torch.log_softmax(logits, -1).max(-1).values, rtol=1e-4)
    last = values(result.tables["token_metrics"], "lens_top1_nlp@no_norm", 3)
    output = model.unembed(capture.resid(3))
    np.testing.assert_allclose(last, -torch.log_softmax(output, -1).max(-1).values, rtol=1e-4)


def test_depth_is_of_each_variant_and_needs_every_point(model: LoadedModel) -> None:
    capture = capture_of(model)
    result = run(capture, ALL, CONTEXT)
    top = result.tables["lens_topk"].query("rank == 1")
    for variant, metric in (("raw", "lens_depth"), ("mean", "lens_depth@mean")):
        depth = values(result.tables["token_metrics"], metric)
        grid = top[top["variant"] == variant].pivot(index="layer", columns="pos", values="token_id").to_numpy()
        for position, found in enumerate(depth):
            agrees = [(grid[point:, position] == grid[-1, position]).all() for point in range(4)]
            assert found == agrees.index(True)
    some = run(capture, Params(points=(1, 3)), CONTEXT)
    assert not some.tables["token_metrics"]["metric"].str.startswith("lens_depth").any()


def test_only_what_is_asked_for_is_read(model: LoadedModel) -> None:
    result = run(capture_of(model), Params(points=(2,), positions=(4, 9), variants=("raw",), top_k=3), CONTEXT)
    assert set(result.tables["lens_topk"]["layer"]) == {2}
    assert set(result.tables["lens_topk"]["pos"]) == {4, 9}
    assert len(result.tables["lens_topk"]) == 6
    assert set(result.tables["token_metrics"]["layer"]) == {2}
    assert "lens_js" not in set(result.tables["token_metrics"]["metric"])


def test_numbers_of_a_position_do_not_depend_on_what_else_is_asked(model: LoadedModel) -> None:
    capture = capture_of(model)
    whole = run(capture, ALL, CONTEXT).tables["token_metrics"]
    some = run(capture, Params(points=(1,), positions=(7,)), CONTEXT).tables["token_metrics"]
    both = some.merge(whole, on=["layer", "pos", "metric"], suffixes=("", "_whole"))
    assert len(both) == len(some)
    np.testing.assert_allclose(both["value"], both["value_whole"], rtol=1e-5)


def test_targets_may_be_the_models_answer_or_a_token(model: LoadedModel) -> None:
    capture = capture_of(model)
    final = run(capture, Params(positions="all", targets="final"), CONTEXT).tables["token_metrics"]
    assert (values(final, "lens_rank", 3) == 1).all()
    np.testing.assert_allclose(values(final, "lens_ce", 1), values(final, "lens_ce_final", 1), rtol=1e-6)
    fixed = run(capture, Params(positions="all", targets=65), CONTEXT).tables["token_metrics"]
    expected = -torch.log_softmax(model.unembed(capture.resid(1)), -1)[:, 65]
    np.testing.assert_allclose(values(fixed, "lens_ce", 1), expected, rtol=1e-4)


def test_means_leave_position_0_out_and_follow_the_mask(model: LoadedModel) -> None:
    capture = capture_of(model)
    result = run(capture, ALL, CONTEXT)
    tokens, layers = result.tables["token_metrics"], result.tables["layer_metrics"]
    kl = values(tokens, "lens_kl", 1)
    row = layers[(layers["metric"] == "lens_kl") & (layers["layer"] == 1)].iloc[0]
    assert row["value"] == pytest.approx(kl[1:].mean(), rel=1e-6)
    assert row["n_used"] == capture.n_tokens - 1
    ce = layers[(layers["metric"] == "lens_ce") & (layers["layer"] == 1)].iloc[0]
    assert ce["n_used"] == capture.n_tokens - 2
    masked = run(capture, ALL, Context("no_sink", {}, Progress())).tables["layer_metrics"]
    assert masked["n_used"].max() == int(capture.masks.no_sink.sum())


def test_one_token_has_no_target_no_control_and_no_mean(model: LoadedModel) -> None:
    result = run(capture_of(model, token_ids=[5]), ALL, CONTEXT)
    tokens, layers = result.tables["token_metrics"], result.tables["layer_metrics"]
    missing = tokens[tokens["metric"].isin(["lens_rank", "lens_rank_control", "lens_ce"])]
    assert missing["value"].isna().all()
    assert set(missing["status"]) == {"not_applicable"}
    assert set(layers["status"]) == {"too_few_tokens"}


def test_padding_rows_of_the_unembedding_are_no_tokens() -> None:
    model = tiny.loaded("llama", vocab_size=300)
    with torch.no_grad():
        model.hf.lm_head.weight[290:] = 5 * model.hf.lm_head.weight[:10]
    top = run(capture_of(model), Params(positions="all", top_k=100), CONTEXT).tables["lens_topk"]
    assert top["token_id"].max() < len(model.tokenizer)


def test_a_state_that_is_not_finite_is_named_and_spares_the_rest(model: LoadedModel) -> None:
    capture = capture_of(model)
    broken = capture.resid(1).clone()
    broken[6, 0] = torch.nan
    read = capture.read
    object.__setattr__(capture, "read", lambda name: broken if name == "resid.1" else read(name))
    tokens = run(capture, Params(positions="all", variants=("raw",)), CONTEXT).tables["token_metrics"]
    bad = tokens[tokens["status"] == "non_finite"]
    assert set(zip(bad["layer"].fillna(-1), bad["pos"], strict=True)) == {(1, 6), (-1, 6)}
    assert bad["value"].isna().all()


@pytest.mark.parametrize(
    ("wanted", "n_tokens", "expected"),
    [("all", 3, [0, 1, 2]), ("last", 5, [4]), ("sample", 32, list(range(32))), ((4, 1, 4), 9, [1, 4])],
)
def test_positions(wanted: str | tuple[int, ...], n_tokens: int, expected: list[int]) -> None:
    assert positions_of(wanted, n_tokens).tolist() == expected


def test_a_sample_is_even_and_holds_the_last_position() -> None:
    sample = positions_of("sample", 258)
    assert len(set(sample.tolist())) == 32
    assert sample[-1] == 257
    assert set(np.diff(sample)) <= {8, 9}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *itertools.product(
            ("points", "positions", "targets", "top_k", "control_seed"), (-1, None, "9", math.nan, math.inf)
        ),
        *itertools.product(("points", "positions"), ((), (0, -1), (True,), (1.5,))),
        *itertools.product(("variants",), ((), ("raw", "raw"), ("tuned",), ([],), "raw", None)),
        *[("targets", True), ("top_k", 0), ("top_k", 10**9), ("js", 1)],
    ],
)
def test_parameters_that_mean_nothing_are_refused_by_name(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=rf"^lens\.{name} must be"):
        Params(**{name: bad})


@pytest.mark.parametrize("given", [{"points": (4,)}, {"positions": (10**9,)}, {"targets": 260}])
def test_what_lies_outside_this_run_is_refused(model: LoadedModel, given: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match=rf"lens\.{next(iter(given))} must be 0 to \d+"):
        run(capture_of(model), Params(**given), CONTEXT)


def test_cost_grows_with_what_is_asked(model: LoadedModel) -> None:
    little, much = Params(positions="last", variants=("raw",)), ALL
    assert lens.cost(little, model.facts, 4096) < lens.cost(much, model.facts, 4096)
