"""Quality of an SAE on text: known answers of an SAE that rebuilds all or nothing, numpy, and sae-lens' own evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.sae_quality import density_bins
from cache.store import Store
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes.folder import read_info
from probes.saes.loading import LoadedSAE, load_sae
from probes.saes.quality import FIRED, SAEQuality, check_sae, store_quality
from probes.saes.quality_text import builtin_text
from probes.saes.reading import resid_at
from probes.saes.sequences import TextSequence
from tests import tiny, tiny_saes


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(scope="module")
def text(model: LoadedModel) -> tuple[TextSequence, ...]:
    return builtin_text(model, 2_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_saes.make(tmp_path / "saes" / "one", "standard", corpus_variance=30.0)


def opened(folder: Path, model: LoadedModel) -> LoadedSAE:
    return load_sae(read_info(folder), model.facts)


def checked(folder: Path, model: LoadedModel, text: tuple[TextSequence, ...], loss_tokens: int = 600) -> SAEQuality:
    return check_sae(model, opened(folder, model), text, loss_tokens=loss_tokens)


def planted(folder: Path, scale: float) -> Path:
    """An SAE that gives back ``scale`` times what it reads."""
    eye = torch.eye(32)
    both = torch.cat([eye, -eye], dim=1)
    nothing = {"b_enc": torch.zeros(64), "b_dec": torch.zeros(32)}
    return tiny_saes.edit_weights(folder, W_enc=both, W_dec=(scale * both.T).contiguous(), **nothing)


@pytest.mark.parametrize("point", [0, 2, 3])
def test_rebuilding_everything_recovers_all_and_nothing_none(
    folder: Path, model: LoadedModel, text: tuple[TextSequence, ...], point: int
) -> None:
    hook = "blocks.0.hook_resid_pre" if point == 0 else f"blocks.{point - 1}.hook_resid_post"
    tiny_saes.edit_config(folder, metadata={"hook_name": hook})
    whole = checked(planted(folder, 1.0), model, text)
    assert whole.value("sae_explained_variance") == pytest.approx(1.0, abs=1e-4)
    assert whole.value("ce_sae") == pytest.approx(whole.value("ce_clean"), abs=1e-5)
    if point == 2:  # at the others random weights predict no worse without the state, so nothing is defined
        for metric in ("ce_recovered_zero", "ce_recovered_mean", "ce_recovered_zero@all"):
            assert whole.value(metric) == pytest.approx(1.0, abs=1e-4), metric
    assert whole.value("kl") == pytest.approx(0.0, abs=1e-5)
    assert whole.value("delta_ce") == pytest.approx(0.0, abs=1e-5)
    none = checked(planted(folder, 0.0), model, text)
    if point == 2:
        assert none.value("ce_recovered_zero") == pytest.approx(0.0, abs=1e-6)
        assert none.value("ce_recovered_zero@all") == pytest.approx(0.0, abs=1e-6)
    assert none.value("ce_sae") == pytest.approx(none.value("ce_zero"))
    assert none.value("kl") > 0.1


def test_explained_variance_equals_numpy(folder: Path, model: LoadedModel, text: tuple[TextSequence, ...]) -> None:
    found = checked(folder, model, text, loss_tokens=0)
    sae = opened(folder, model)
    states, errors, places = [], [], []
    for one in text:
        x = resid_at(model, torch.tensor([one.ids]), 2)[0]
        rebuilt = sae.reconstruct(x)[0]
        states.append(x[1:].numpy().astype(np.float64))
        errors.append(((x - rebuilt)[1:].numpy().astype(np.float64) ** 2).sum(axis=1))
        places.append(np.arange(1, len(x)))
    x, error, place = np.concatenate(states), np.concatenate(errors), np.concatenate(places)
    spread = ((x - x.mean(axis=0)) ** 2).sum()
    assert found.value("sae_explained_variance") == pytest.approx(1 - error.mean() / 30.0, rel=1e-6)
    assert found.value("sae_explained_variance_own") == pytest.approx(1 - error.sum() / spread, rel=1e-6)
    assert found.value("sae_fvu") == pytest.approx(error.sum() / spread, rel=1e-6)
    at_5 = [row["value"] for row in found.rows if row["metric"] == "sae_explained_variance_by_pos" and row["pos"] == 5]
    assert at_5[0] == pytest.approx(1 - error[place == 5].mean() / 30.0, rel=1e-6)
    counted = {row["metric"] for row in found.rows}
    assert not any(metric.startswith("ce_") for metric in counted)
    assert any(metric.startswith("sae_explained_variance:") for metric in counted)


def test_losses_equal_those_of_sae_lens_on_the_bridge(
    folder: Path, model: LoadedModel, text: tuple[TextSequence, ...]
) -> None:
    from sae_lens import evals
    from sae_lens.training.activation_scaler import ActivationScaler

    same = tuple(one for one in text if len(one.ids) == 128)[:4]
    ours = checked(folder, model, same)
    ids = torch.tensor([one.ids for one in same])
    theirs = evals.get_recons_loss(
        opened(folder, model).module, model.bridge, ActivationScaler(), ids, True, True,
        hook_name="blocks.1.hook_out",
    )  # fmt: skip
    for metric, name in (
        ("ce_clean", "ce_loss_without_sae"),
        ("ce_sae@all", "ce_loss_with_sae"),
        ("ce_zero@all", "ce_loss_with_ablation"),
    ):
        assert ours.value(metric) == pytest.approx(float(theirs[name].mean()), rel=1e-4), metric
    kl = float(theirs["kl_div_with_sae"][:, :-1].mean())  # they count the last position too, which predicts nothing
    assert ours.value("kl@all") == pytest.approx(kl, rel=1e-3)


def test_a_position_that_is_massive_is_left_out_and_counted_with_all(
    folder: Path, model: LoadedModel, text: tuple[TextSequence, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.saes import quality

    def grown(*args: object) -> torch.Tensor:
        states = resid_at(*args)  # type: ignore[arg-type]
        states[:, 3] *= 1000
        return states

    monkeypatch.setattr(quality, "resid_at", grown)
    found = checked(folder, model, text, loss_tokens=0)
    places = [row["pos"] for row in found.rows if row["metric"] == "sae_explained_variance_by_pos"]
    assert 3 not in places
    assert 0 not in places
    assert 2 in places
    assert found.value("sae_explained_variance@all") < found.value("sae_explained_variance") - 100


def test_histograms_add_up(folder: Path, model: LoadedModel, text: tuple[TextSequence, ...]) -> None:
    found = checked(folder, model, text, loss_tokens=0)
    rows = [row for row in found.rows if row["metric"] == "sae_density"]
    fired = sum(row["value"] for row in rows)
    assert fired + 64 * found.value("sae_never_fired") == pytest.approx(64)
    assert density_bins(torch.tensor(found.fired), found.n) == {row["pos"]: row["value"] for row in rows}
    assert found.fired.count(0) == round(64 * found.value("sae_never_fired"))
    counts = {row["pos"]: row["value"] for row in found.rows if row["metric"] == "sae_l0_count"}
    n = sum(counts.values())
    assert sum(l0 * count for l0, count in counts.items()) / n == pytest.approx(found.value("sae_l0"))
    dead = next(row for row in found.rows if row["metric"] == "sae_dead")
    assert dead["status"] == "too_few_tokens"


def test_it_can_be_stopped_stored_and_read(folder: Path, model: LoadedModel, text: tuple[TextSequence, ...]) -> None:
    with pytest.raises(Cancelled):
        check_sae(model, opened(folder, model), text, progress=Progress(lambda *_: None, lambda: True))
    found = checked(folder, model, text, loss_tokens=200)
    whose = found.rows[0]
    with Store.open(":memory:") as store:
        store_quality(store, found)
        store_quality(store, found)
        read = store.sae_quality(whose["content"])
        fired = store.answer(FIRED, whose["content"], whose["corpus"], whose["fingerprint"])
    assert fired == {"n": found.n, "fired": list(found.fired)}
    assert len(read) == len(found.rows)
    assert read["corpus"].iloc[0].startswith("built-in texts, ")
    whole = read[read["pos"].isna()].set_index("metric")["value"]
    assert whole["ce_recovered_zero"] == pytest.approx(found.value("ce_recovered_zero"))


def test_no_text_is_refused(folder: Path, model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match="at least 1 token"):
        check_sae(model, opened(folder, model), ())
