"""Concept prompts: what is read of one, against plain numpy; the edit they make; the keys, the control and the refusals."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from cache.store import Store
from probes import concept, concept_effect
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.model.edits import Edit, parse_edit
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from probes.saes.concept import STRONGEST, read_concept
from probes.saes.folder import content_digest, installed_saes, read_info
from probes.saes.loading import load_sae
from tests import tiny, tiny_saes
from tests.probes.captured import CONTEXT, capture_of, edited

POINT = 2
CONCEPT = "the doctor saw her"
CALLS = (ProbeCall("tokens"), ProbeCall("lens", {"positions": "last"}))
Doubles = NDArray[np.float64]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EIGENSCOPE_HOME", str(tmp_path))
    tiny_saes.make(tmp_path / "saes" / "one", "topk")
    return tmp_path / "saes" / "one"


@pytest.fixture
def run(model: LoadedModel, runner: Runner) -> Callable[..., RunResult]:
    def answer(*edits: Edit, calls: tuple[ProbeCall, ...] = CALLS) -> RunResult:
        return runner.run(RunRequest(model.facts.name, text_ids(model, tiny.TEXT), calls, edits=edits))

    return answer


def asked(add: float, text: str = CONCEPT, sae: str = "one", **more: Any) -> dict[str, Any]:
    return {"site": "resid", "layer": POINT, "op": "add", "source": {"concept": [sae, text], "add": add, **more}}


def by_hand(
    model: LoadedModel, folder: Path, text: str = CONCEPT, point: int = POINT
) -> tuple[dict[int, float], Doubles]:
    """f and f W_dec of a concept prompt without massive tokens from the files of a TopK SAE alone."""
    weights = {name: array.astype(np.float64) for name, array in load_file(folder / "sae_weights.safetensors").items()}
    states = capture_of(model, text).resid(point).numpy().astype(np.float64)[1:]
    norms = np.linalg.norm(states, axis=1)
    assert (norms <= 10 * np.sort(norms)[(len(norms) - 1) // 2]).all(), "no state is massive"
    mean = np.maximum((states - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0).mean(axis=0)
    largest = np.argsort(-mean, kind="stable")[:STRONGEST]
    f = {int(latent): float(mean[latent]) for latent in largest if mean[latent] > 0}
    return f, np.array(list(f.values())) @ weights["W_dec"][list(f)]


def logits(capture: Capture) -> bytes:
    return capture.model.unembed(capture.resid(capture.model.facts.n_layers)).numpy().tobytes()


def test_what_is_read_and_added_equals_plain_numpy(
    model: LoadedModel, home: Path, run: Callable[..., RunResult]
) -> None:
    f, delta = by_hand(model, home)
    clean = edited(model).resid(POINT).double().numpy()
    for add in (-3.5, 0.5, 4.0):
        made = run(parse_edit(asked(add)))
        source = made.info.request.edits[0].as_dict()["source"]
        assert source["latents"] == list(f)
        assert source["values"] == pytest.approx(list(f.values()), rel=1e-4)
        moved = made.tensor(f"resid.{POINT}").double().numpy() - clean
        assert np.abs(moved - add * delta).max() < 1e-3 * np.abs(add * delta).max()
        lengths = np.linalg.norm(moved, axis=1)
        assert lengths == pytest.approx([abs(add) * np.linalg.norm(delta)] * len(moved), rel=1e-3)


def test_the_bias_of_the_decoder_is_no_part_of_what_is_added(model: LoadedModel, home: Path) -> None:
    tiny_saes.edit_weights(home, b_dec=torch.zeros(32))
    given = asked(1.0, latents=[3], values=[2.0])
    added = edited(model, given).resid(POINT) - edited(model).resid(POINT)
    tiny_saes.edit_weights(home, b_dec=torch.full((32,), 50.0))
    again = edited(model, given).resid(POINT) - edited(model).resid(POINT)
    assert torch.equal(added, again)


def test_nothing_added_gives_byte_identical_logits(model: LoadedModel, run: Callable[..., RunResult]) -> None:
    settled = run(parse_edit(asked(0.0))).info.request.edits[0].as_dict()
    assert logits(edited(model, settled)) == logits(edited(model))
    one = settled | {"source": settled["source"] | {"add": 1.0}}
    assert logits(edited(model, one)) != logits(edited(model))


def test_less_of_a_concept_is_the_opposite_of_more(model: LoadedModel, run: Callable[..., RunResult]) -> None:
    clean = edited(model).resid(POINT)
    more, less = (run(parse_edit(asked(add))).tensor(f"resid.{POINT}") - clean for add in (2.0, -2.0))
    assert torch.allclose(more, -less, atol=1e-4)


def test_the_control_is_as_long_and_points_elsewhere(model: LoadedModel, run: Callable[..., RunResult]) -> None:
    settled = run(parse_edit(asked(3.0))).info.request.edits[0].as_dict()
    own = settled["source"]["latents"]
    others = [latent for latent in range(64) if latent not in own][: len(own)]
    clean = edited(model).resid(POINT)
    control = settled | {"source": settled["source"] | {"along": others}}
    steered, along = (edited(model, one).resid(POINT) - clean for one in (settled, control))
    assert along.norm(dim=1).tolist() == pytest.approx(steered.norm(dim=1).tolist(), rel=1e-3)
    assert torch.cosine_similarity(steered, along).abs().max() < 0.9


def test_the_key_follows_the_sae_and_the_latents_used(run: Callable[..., RunResult], home: Path) -> None:
    made = run(parse_edit(asked(2.0)))
    assert made.info.forward_passes == 2  # one of them reads the concept prompt
    settled = made.info.request.edits[0]
    assert settled.as_dict()["source"]["content"] == content_digest(home)
    again = run(parse_edit(json.loads(json.dumps(settled.as_dict()))))
    assert (again.info.run_id, again.info.forward_passes) == (made.info.run_id, 0)
    source = settled.source
    louder = dataclasses.replace(source, values=tuple(2 * value for value in source.values))  # type: ignore[type-var, union-attr, arg-type]
    other = run(dataclasses.replace(settled, source=louder))
    assert other.info.capture_id != made.info.capture_id
    tiny_saes.edit_weights(home, W_dec=torch.eye(64)[:, :32].contiguous())
    assert run(parse_edit(asked(2.0))).info.capture_id != made.info.capture_id
    with pytest.raises(BadRequest, match="has changed since this edit was made"):
        run(settled)


def test_only_top_k_is_taken_off_thresholds_and_gates_stay(model: LoadedModel, tmp_path: Path) -> None:
    states = capture_of(model, CONCEPT).resid(POINT)[1:]
    for kind in ("topk", "standard", "jumprelu", "gated"):
        sae = load_sae(read_info(tiny_saes.make(tmp_path / "saes" / kind, kind)), model.facts)
        plain, own = sae.encode_plain(states), sae.encode(states)
        if kind != "topk":
            assert torch.equal(plain, own), kind
            continue
        assert ((plain > 0).sum(dim=1) > (own > 0).sum(dim=1)).all()
        assert torch.allclose(plain[own > 0], own[own > 0])
    scaled = tiny_saes.edit_config(tiny_saes.make(tmp_path / "saes" / "scaled"), rescale_acts_by_decoder_norm=True)
    sae = load_sae(read_info(scaled), model.facts)
    own = sae.encode(states)
    assert torch.allclose(sae.encode_plain(states)[own > 0], own[own > 0])


def test_an_sae_that_normalises_adds_in_the_units_of_each_state(model: LoadedModel, tmp_path: Path) -> None:
    tiny_saes.edit_config(tiny_saes.make(tmp_path / "saes" / "normed"), normalize_activations="layer_norm")
    sae = load_sae(read_info(tmp_path / "saes" / "normed"), model.facts)
    clean = edited(model).resid(POINT)
    given = asked(2.0, sae="normed", latents=[3, 9], values=[1.5, 0.5])
    moved = edited(model, given).resid(POINT) - clean
    per_unit = 1.5 * sae.decoder[3] + 0.5 * sae.decoder[9]
    expected = 2.0 * clean.std(dim=1, keepdim=True) * per_unit
    assert torch.allclose(moved, expected, atol=1e-3)


def test_position_0_and_massive_tokens_do_not_count(model: LoadedModel, home: Path) -> None:
    sae = load_sae(read_info(home), model.facts)
    states = capture_of(model, CONCEPT).resid(POINT).clone()
    plain = read_concept(sae, states)
    assert plain.n_used == len(states) - 1
    assert plain.norm == pytest.approx(float(np.linalg.norm(by_hand(model, home)[1])), rel=1e-4)
    states[0] *= 1000
    assert read_concept(sae, states) == plain
    long = states.clone()
    long[4] *= 40  # far above the median norm
    kept = torch.cat([states[:4], states[5:]])
    assert read_concept(sae, long).latents == read_concept(sae, kept).latents
    pair = states[:3].clone()
    pair[1] *= 40
    assert read_concept(sae, pair).n_used == 1
    for count in (0, 1):
        with pytest.raises(
            BadRequest, match=f"at least 2 tokens after position 0, .* and has {count}: write a sentence"
        ):
            read_concept(sae, states[: 1 + count])


def test_the_probe_tells_what_the_edit_takes(model: LoadedModel, run: Callable[..., RunResult], home: Path) -> None:
    found = concept.run(capture_of(model, CONCEPT), concept.Params(sae="one"), CONTEXT).tensors
    source = run(parse_edit(asked(1.0))).info.request.edits[0].as_dict()["source"]
    assert (found["concept_latents"].tolist(), found["concept_values"].tolist()) == (
        source["latents"],
        source["values"],
    )
    norm, state_norm, n_used = found["concept_size"].tolist()
    states = capture_of(model, CONCEPT).resid(POINT)[1:]
    assert norm == pytest.approx(float(np.linalg.norm(by_hand(model, home)[1])), rel=1e-4)
    assert (state_norm, n_used) == (pytest.approx(float(states.norm(dim=1).median())), len(states))


def test_the_effect_is_of_all_latents_together(model: LoadedModel, home: Path) -> None:
    params = concept_effect.Params(sae="one", latents=(3, 9), values=(1.5, 0.5))
    found = concept_effect.run(capture_of(model, CONCEPT), params, CONTEXT).tensors
    sae = load_sae(read_info(home), model.facts)
    seen = (1.5 * sae.decoder[3] + 0.5 * sae.decoder[9]).double() * model.norm_weight.double()
    effect = seen @ model.unembed_matrix().detach().double().T
    effect -= effect.mean()
    assert found["concept_effect_ids"].tolist() == [
        effect.topk(10).indices.tolist(),
        (-effect).topk(10).indices.tolist(),
    ]
    assert found["concept_effect_values"][0].tolist() == pytest.approx(effect.topk(10).values.tolist(), rel=1e-5)
    with pytest.raises(BadRequest, match=r"latents must lie in 0\.\.63 for one, not 64"):
        concept_effect.cost(concept_effect.Params(sae="one", latents=(64,)), model.facts, 4)
    for bad in ({"latents": ()}, {"latents": (1, 1), "values": (1.0, 1.0)}, {"values": (1.0, 2.0)}, {"values": ("x",)}):
        with pytest.raises(ValueError, match=r"concept_effect\.\w+ must be"):
            concept_effect.Params(**{"sae": "one", **bad})  # type: ignore[arg-type]


def test_an_edit_reads_back_as_it_was_written() -> None:
    given = asked(-2.5, latents=[3, 9], values=[1.5, 0.25], along=[4, 5], content="ab") | {"positions": "generated"}
    assert parse_edit(given).as_dict() == given
    assert "plus -2.5 x the concept 'the doctor saw her' of one along 2 other latents" in str(parse_edit(given))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (asked(1.0, text="  \n"), "needs at least one visible character"),
        (asked(1.0, text="x" * 501), "at most 500 characters, not 501"),
        (asked(1.0, text=3), "needs at least one visible character"),  # type: ignore[arg-type]
        (asked(1.0, sae=""), "an SAE is named by a text"),
        (asked(float("inf")), "add must be a finite number"),
        (asked(1.0) | {"op": "set"}, "a concept goes with op add, not set"),
        (asked(1.0) | {"site": "mlp_out"}, "an SAE reads resid, not mlp_out"),
        (asked(1.0) | {"dims": [1]}, "an SAE reads all dims"),
        (asked(1.0, latents=[1]), "latents and values of a concept go together"),
        (asked(1.0, latents=[1, 1], values=[1.0, 1.0]), "must be different whole numbers"),
        (asked(1.0, latents=[1, 2], values=[1.0]), "as many numbers above 0 as latents"),
        (asked(1.0, latents=[1, 2], values=[1.0, 0]), "as many numbers above 0 as latents"),
        (asked(1.0, latents=[1], values=[1.0], along=[1]), "must be 1 latents that are not its own"),
        (asked(1.0, latents=[1], values=[1.0], along=[2, 3]), "must be 1 latents that are not its own"),
        (asked(1.0, along=3), "along of a concept must be different whole numbers"),
        (asked(1.0, clamp=2.0), "a source with an SAE is"),
        ({**asked(1.0), "source": {"concept": ["one"], "add": 1.0}}, "a source with an SAE is"),
        ({**asked(1.0), "source": {"concept": ["one", "x"]}}, "a source with an SAE is"),
    ],
)
def test_what_cannot_mean_anything_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says) as error:
        parse_edit(given)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused_before_the_text_runs(
    run: Callable[..., RunResult], home: Path, store: Store
) -> None:
    tiny_saes.make(home.parent / "wide", d_in=48)
    tiny_saes.edit_weights(tiny_saes.make(home.parent / "silent"), b_enc=torch.full((64,), -1e4), b_dec=torch.zeros(32))
    for given, says in (
        (asked(1.0, sae="nobody's"), "No SAE is called"),
        (asked(1.0, sae="wide"), "d_in is 48, but tiny-llama has 32"),
        (asked(1.0, sae="silent"), "No latent of silent is active on the concept prompt"),
        (asked(1.0) | {"layer": 1}, "reads point 2, so layer must be 2, not 1"),
        (asked(1.0, text="x" * 300), "concept prompt: The text has 301 tokens; tiny-llama takes at most 256"),
        (asked(1.0, text="a \ud800"), "not valid Unicode"),
        (asked(1.0, latents=[64], values=[1.0]), "latents of one lies in 0..63, not 64"),
        (asked(1.0, latents=[3], values=[1.0], along=[99]), "along of one lies in 0..63, not 99"),
        (asked(1.0, along=[1, 2]), "along of a concept must be"),
    ):
        with pytest.raises(BadRequest, match=says) as error:
            run(parse_edit(given))
        assert str(error.value).endswith(".")
    assert store.info()["runs"] == 0


@pytest.mark.model
def test_the_shipped_sae_reads_a_sentence_as_plain_numpy_does(embedded: LoadedModel) -> None:
    info = next(one.info for one in installed_saes() if one.info is not None and one.info.shipped)
    sae, text = load_sae(info, embedded.facts), "The doctor examined the patient in the hospital."
    found = read_concept(sae, capture_of(embedded, text).resid(info.point))
    f, delta = by_hand(embedded, info.folder, text, info.point)
    assert found.latents == tuple(f)
    assert found.values == pytest.approx(list(f.values()), rel=1e-4)
    assert found.norm == pytest.approx(float(np.linalg.norm(delta)), rel=1e-4)
    word, sentence = (capture_of(embedded, one).resid(info.point) for one in ("hospital", "hospital of the town"))
    assert word[1].norm() > 10 * sentence[2].norm(), "the first word of this model's texts can be massive"
    assert read_concept(sae, sentence).state_norm < 1_000
    with pytest.raises(BadRequest, match="at least 2 tokens after position 0"):
        read_concept(sae, word)
