"""The SAE that ships with the app: small enough, what its card says, and a fair reading of the example passage."""

import pytest

from probes import latents
from probes.model.capture import Capture
from probes.model.catalog import EMBEDDED
from probes.model.loaded import LoadedModel
from probes.prompts import examples
from probes.saes.folder import WEIGHTS, SAEInfo, installed_saes
from probes.saes.folder import sae_lens as library
from probes.saes.loading import load_sae
from tests.probes.captured import CONTEXT, capture_of

NAME = f"{EMBEDDED}-blocks.15.hook_resid_post"


@pytest.fixture(scope="module")
def info() -> SAEInfo:
    found = next(sae for sae in installed_saes() if sae.name == NAME)
    assert found.info is not None, found.problem
    return found.info


@pytest.fixture(scope="module")
def capture(embedded: LoadedModel) -> Capture:
    return capture_of(embedded, examples()[0].text)


def test_it_is_what_the_design_asks_for(info: SAEInfo) -> None:
    assert info.shipped
    assert (info.architecture, info.point, info.d_in, info.d_sae, info.k) == ("topk", 16, 576, 4608, 32)
    assert info.stored_dtype == "float16"
    assert sum(path.stat().st_size for path in info.folder.iterdir()) <= 12_000_000
    assert info.remark.startswith("a small one")


def test_its_card_names_data_licences_seed_and_held_out_quality(info: SAEInfo) -> None:
    card = info.card or ""
    licences = ("CC BY-SA", "public domain", "BSD-3-Clause")
    for said in ("A small one", "loss recovered", *licences, "seed", "held-out documents", "L0"):
        assert said in card, said
    assert info.corpus_variance is not None
    assert f"{info.corpus_variance:.1f}" in card


def test_plain_sae_lens_opens_it(info: SAEInfo) -> None:
    module = library().SAE.load_from_disk(info.folder)
    assert (info.folder / WEIGHTS).is_file()
    assert module.W_dec.float().norm(dim=1).sub(1).abs().max() < 2e-3


@pytest.mark.model
def test_it_fits_the_passage_outside_sinks_only(capture: Capture) -> None:
    result = latents.run(capture, latents.Params(), CONTEXT)
    value = result.tables["layer_metrics"].set_index("metric")["value"]
    assert value["sae_explained_variance"] > 0.6
    assert value["sae_explained_variance_own"] > 0.6
    assert value["sae_explained_variance@all"] < 0  # one massive token
    assert 16 <= value["sae_l0"] <= 32
    assert set(result.tables["latents"]["layer"]) == {16}


@pytest.mark.model
def test_it_was_made_for_the_embedded_model(info: SAEInfo, embedded: LoadedModel) -> None:
    assert load_sae(info, embedded.facts).notes == ()
    assert latents.compatible(embedded) is None
