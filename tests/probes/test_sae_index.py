"""Indexing a tiny SAE of a tiny model, against activations computed from a whole pass."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.latent_index import IndexRules
from analysis.logit_effect import logit_effect
from cache import Store
from probes.errors import BadRequest, PlanRefused
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces
from probes.plan import LIMIT_VARIABLE
from probes.progress import Cancelled, Progress
from probes.saes.folder import read_info
from probes.saes.index import SAEIndex, index_sae, plan_index, store_index
from probes.saes.loading import LoadedSAE, load_sae
from probes.saes.reading import MASSIVE_NORM, read_sequences, resid_at
from probes.saes.sequences import FileText, TextSequence, cut_documents, read_files
from tests import tiny, tiny_saes

RULES = IndexRules(top=3, around=4, min_seen=2, coactive_least=1, coactive_fired=1)
TEXTS = (
    FileText("file", "a.txt", tiny.TEXT * 2),
    FileText("file", "b.txt", "Short text; <mark> stays text."),
    FileText("file", "c.txt", "tiny"),
)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(scope="module")
def sae(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedSAE:
    return load_sae(read_info(tiny_saes.make(tmp_path_factory.mktemp("saes") / "tiny")), model.facts)


@pytest.fixture(scope="module")
def sequences(model: LoadedModel) -> tuple[TextSequence, ...]:
    return cut_documents(TEXTS, model, n_tokens=10_000, context=32)


@pytest.fixture(scope="module")
def index(model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...]) -> SAEIndex:
    return index_sae(model, sae, sequences, "two texts", RULES)


def test_documents_are_cut_whole_and_begin_with_bos(model: LoadedModel, sequences: tuple[TextSequence, ...]) -> None:
    lengths = [len(one.ids) for one in sequences]
    assert lengths == sorted(lengths, reverse=True)
    assert min(lengths) >= 16
    assert max(lengths) == 32
    assert {one.ids[0] for one in sequences} == {model.facts.bos_id}
    assert {one.name for one in sequences} == {"a.txt", "b.txt"}  # c.txt is too short
    special = model.tokenizer.convert_tokens_to_ids("<mark>")
    assert all(special not in one.ids for one in sequences)


def test_the_limits_of_cutting(model: LoadedModel) -> None:
    assert len(cut_documents(TEXTS, model, n_tokens=33, context=32)) == 2
    assert len(cut_documents(TEXTS, model, n_tokens=10_000, context=32, per_document=1)) == 2
    assert cut_documents(TEXTS, model, n_tokens=9, seed=3) == cut_documents(TEXTS, model, n_tokens=9, seed=3)
    for wrong, said in (
        ({"context": 15}, "16 to 256"),
        ({"context": 257}, "16 to 256"),
        ({"n_tokens": 0}, "at least 1"),
    ):
        with pytest.raises(BadRequest, match=said):
            cut_documents(TEXTS, model, **{"n_tokens": 5, **wrong})
    with pytest.raises(BadRequest, match="no 16 tokens"):
        cut_documents(TEXTS[2:], model, n_tokens=5)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadRequest, match=r"latin\.txt cannot be read: is not UTF-8"):
        read_files([tmp_path / "latin.txt"])
    with pytest.raises(BadRequest, match=r"none\.txt cannot be read: no such file"):
        read_files([tmp_path / "none.txt"])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_states_are_those_of_a_whole_pass(architecture: str) -> None:
    model = tiny.loaded(architecture)
    ids = torch.randint(4, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = model.hf(ids, output_hidden_states=True).hidden_states
    for point in range(model.facts.n_layers):
        torch.testing.assert_close(resid_at(model, ids, point), states[point].float())


def test_position_0_and_massive_states_do_not_count(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = list(read_sequences(model, sae, sequences))
    assert not any(read.keep[0] for read in usual)
    assert all(read.keep[1:].all() for read in usual)

    def with_a_giant(model: LoadedModel, ids: torch.Tensor, point: int) -> torch.Tensor:
        resid = resid_at(model, ids, point)
        resid[0, 5] = 2 * MASSIVE_NORM * resid[0].norm(dim=-1).max() * torch.nn.functional.normalize(resid[0, 5], dim=0)
        return resid

    monkeypatch.setattr("probes.saes.reading.resid_at", with_a_giant)
    read = next(read_sequences(model, sae, sequences))
    assert (~read.keep).nonzero()[:, 0].tolist() == [0, 5]
    assert len(read.activations) == len(read.ids) - 2


def test_the_index_is_what_the_sae_says(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...], index: SAEIndex
) -> None:
    active = [sae.encode(resid_at(model, torch.tensor([one.ids]), 2)[0]) for one in sequences]
    kept = torch.cat([acts[1:] for acts in active])
    latents = index.tables["sae_latents"]
    assert index.row["n_tokens"] == len(kept)
    assert index.row["n_left_out"] == len(sequences)
    assert latents["n_fired"].tolist() == (kept > 0).sum(dim=0).tolist()
    np.testing.assert_allclose(latents["max"].fillna(0), kept.max(dim=0).values.clamp(min=0), rtol=1e-5)
    for hit in index.tables["sae_hits"].itertuples():
        expected = active[hit.seq][hit.first : hit.first + len(hit.activations), hit.latent].clone()
        if hit.first == 0:
            expected[0] = torch.nan
        np.testing.assert_allclose(hit.activations, expected, rtol=1e-4, atol=1e-5)


def test_the_label_is_the_rule_its_numbers_are_of(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...], index: SAEIndex
) -> None:
    tokens = index.tables["sae_latent_tokens"]
    ids = torch.cat([torch.tensor(one.ids[1:]) for one in sequences])
    fired = torch.cat([sae.encode(resid_at(model, torch.tensor([one.ids]), 2)[0])[1:] for one in sequences]) > 0
    checked = 0
    for row in index.tables["sae_latents"].itertuples():
        if not row.n_fired:
            assert pd.isna(row.label)
            continue
        rule = tokens[(tokens["latent"] == row.latent) & (tokens["rank"] <= 3)]["token_id"].tolist()
        effect = logit_effect(sae.decoder[row.latent], model.norm_weight, model.unembed_matrix().detach(), k=3)
        sides = (rule, effect.promoted.tolist())
        spelt = [
            ", ".join(json.dumps(text, ensure_ascii=False) for text in pieces(model.tokenizer, few)) for few in sides
        ]
        assert row.label == " → ".join(spelt).strip()
        checked += 1
        in_rule = torch.isin(ids, torch.tensor(rule, dtype=torch.long))
        both = (in_rule & fired[:, row.latent]).sum().item()
        if rule:
            assert row.precision == pytest.approx(both / in_rule.sum().item())
            assert row.recall == pytest.approx(both / row.n_fired)
        else:
            assert np.isnan(row.precision)
    assert checked > 5


def test_neighbours_and_cosines_are_those_of_the_weights(sae: LoadedSAE, index: SAEIndex) -> None:
    rows = torch.nn.functional.normalize(sae.decoder, dim=1)
    cosine = (rows @ rows.T).fill_diagonal_(-2)
    found = index.tables["sae_neighbours"]
    decoder = found[found["kind"] == "decoder"]
    for latent in range(sae.info.d_sae):
        best = cosine[latent].topk(10)
        own = decoder[decoder["latent"] == latent]
        assert own["other"].tolist() == best.indices.tolist()
        np.testing.assert_allclose(own["value"], best.values, atol=1e-6)
    assert set(found["kind"]) == {"decoder", "coactive", "phi"}
    latents = index.tables["sae_latents"]
    np.testing.assert_allclose(
        latents["encoder_cosine"], torch.cosine_similarity(sae.encoder, sae.decoder, dim=1), atol=1e-6
    )
    centred = rows.double() - rows.double().mean(dim=0)
    captured = np.linalg.norm(latents[["x", "y"]], axis=0)
    np.testing.assert_allclose(captured, np.linalg.svd(centred.numpy(), compute_uv=False)[:2], rtol=0.02)


def test_plan_and_store(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...], index: SAEIndex
) -> None:
    plan = plan_index(model, sae, sequences, RULES)
    assert plan.n_tokens == sum(len(one.ids) for one in sequences)
    assert plan.seconds > 0
    with Store.open(":memory:") as store:
        key = store_index(store, index)
        again = index_sae(model, sae, sequences, "two texts", RULES)
        assert store_index(store, again) == key
        assert store_index(store, index_sae(model, sae, sequences[:-1], "two texts", RULES)) != key
        for name, table in index.tables.items():
            stored = store.sae_table(key, name)
            assert len(stored) == len(table)
            assert set(stored.columns) == set(table.columns)
        hits = store.sae_table(key, "sae_hits")
        assert any(np.isnan(values[0]) for values in hits["activations"])


def test_too_large_a_plan_is_refused(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "1000000")
    with pytest.raises(PlanRefused, match="take fewer tokens"):
        plan_index(model, sae, sequences)


def test_cancelling_stops_between_sequences(
    model: LoadedModel, sae: LoadedSAE, sequences: tuple[TextSequence, ...]
) -> None:
    seen: list[float] = []
    progress = Progress(lambda fraction, _: seen.append(fraction), lambda: len(seen) == 2)
    with pytest.raises(Cancelled):
        index_sae(model, sae, sequences, "two texts", RULES, progress)
    assert len(seen) == 2
    finished: list[float] = []
    index_sae(model, sae, sequences, "two texts", RULES, Progress(lambda fraction, _: finished.append(fraction)))
    assert finished == sorted(finished)


def test_a_latent_that_never_fires_has_gaps(
    model: LoadedModel, tmp_path: Path, sequences: tuple[TextSequence, ...]
) -> None:
    folder = tiny_saes.make(tmp_path / "silent", "standard")
    tiny_saes.edit_weights(folder, b_enc=torch.where(torch.arange(64) == 7, -1e6, 0.0))
    found = index_sae(model, load_sae(read_info(folder), model.facts), sequences, "two texts", RULES)
    silent = found.tables["sae_latents"].iloc[7]
    assert (silent["n_fired"], silent["density"]) == (0, 0.0)
    assert pd.isna(silent[["max", "mean", "label", "precision", "recall"]]).all()
    assert np.isfinite(silent[["encoder_cosine", "x", "y"]].astype(float)).all()
    assert 7 in set(found.tables["sae_neighbours"]["latent"])
    assert 7 not in set(found.tables["sae_hits"]["latent"])
