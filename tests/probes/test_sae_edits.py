"""Edits whose source is an SAE, on a tiny model: identities, the bridge's hooks, keys and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cache.store import Store
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.model.edits import Edit, parse_edit
from probes.model.health import relative_error
from probes.model.loaded import LoadedModel
from probes.model.sae_editing import written
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from probes.saes.folder import content_digest, read_info
from probes.saes.loading import LoadedSAE, load_sae
from tests import tiny, tiny_saes
from tests.probes.captured import edited

NAME, POINT, LATENT, OTHER = "one", 2, 7, 9
CALLS = (ProbeCall("tokens"), ProbeCall("lens", {"positions": "last"}))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EIGENSCOPE_HOME", str(tmp_path))
    tiny_saes.make(tmp_path / "saes" / NAME, "standard")
    return tmp_path / "saes" / NAME


@pytest.fixture
def sae(home: Path, model: LoadedModel) -> LoadedSAE:
    return load_sae(read_info(home), model.facts)


@pytest.fixture
def run(model: LoadedModel, runner: Runner) -> Callable[..., RunResult]:
    def answer(*edits: Edit, calls: tuple[ProbeCall, ...] = CALLS) -> RunResult:
        return runner.run(RunRequest(model.facts.name, text_ids(model, tiny.TEXT), calls, edits=edits))

    return answer


def latent(op: str, number: float, index: int = LATENT, **more: Any) -> dict[str, Any]:
    positions = {"positions": more.pop("positions")} if "positions" in more else {}
    source = {"latent": [NAME, index], "add" if op == "add" else "clamp": number, **more}
    return {"site": "resid", "layer": POINT, "op": op, "source": source, **positions}


def logits(capture: Capture) -> Tensor:
    return capture.model.unembed(capture.resid(capture.model.facts.n_layers))


def bridge_logits(clean: Capture, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The bridge's logits with the state at point 2 changed in a hook of its own."""
    hooks = [(f"blocks.{POINT}.hook_in", lambda state, hook: change(state[0].clone())[None])]
    with torch.no_grad():
        return clean.model.bridge.run_with_hooks(clean.token_ids[None], fwd_hooks=hooks)[0]


def test_adding_nothing_gives_byte_identical_logits(model: LoadedModel) -> None:
    clean = edited(model)
    nothing = edited(model, latent("add", 0, typical=5.0))
    assert logits(nothing).numpy().tobytes() == logits(clean).numpy().tobytes()


def test_adding_moves_each_state_by_c_times_the_typical_size(model: LoadedModel, sae: LoadedSAE) -> None:
    row = sae.decoder[LATENT]
    for c in (-3.0, 0.5, 8.0):
        capture = edited(model, latent("add", c, typical=1.75))
        moved = capture.resid(POINT) - edited(model).resid(POINT)
        assert moved.norm(dim=1).tolist() == pytest.approx([abs(c) * 1.75 * float(row.norm())] * len(moved), rel=1e-4)
        cosine = torch.cosine_similarity(moved, row[None] * c)
        assert cosine.min() > 1 - 1e-5


def test_clamping_to_what_it_is_changes_nothing(model: LoadedModel, sae: LoadedSAE) -> None:
    clean = edited(model)
    at = 11
    value = float(sae.encode(clean.resid(POINT))[at, LATENT])
    same = edited(model, latent("set", value, positions=[at]))
    assert relative_error(logits(same), logits(clean)) <= 1e-5
    assert relative_error(logits(edited(model, latent("set", value + 3, positions=[at]))), logits(clean)) > 1e-3


def test_an_sae_that_rebuilds_everything_leaves_the_logits(model: LoadedModel, home: Path) -> None:
    eye = torch.eye(32)
    both = torch.cat([eye, -eye], dim=1)
    nothing = {"b_enc": torch.zeros(64), "b_dec": torch.zeros(32)}
    tiny_saes.edit_weights(home, W_enc=both, W_dec=both.T.contiguous(), **nothing)
    source = {"site": "resid", "layer": POINT, "op": "set", "source": {"sae": NAME}}
    assert relative_error(logits(edited(model, source)), logits(edited(model))) <= 1e-4
    tiny_saes.edit_weights(home, W_dec=torch.zeros(64, 32))
    assert edited(model, source).resid(POINT).abs().max() == 0
    kept = {**source, "source": {"sae": NAME, "keep_error": True}}
    assert torch.equal(logits(edited(model, kept)), logits(edited(model)))


def test_every_source_equals_the_bridges_hook(model: LoadedModel, sae: LoadedSAE) -> None:
    clean = edited(model)
    w_enc, b_enc, w_dec, b_dec = (sae.module.state_dict()[k] for k in ("W_enc", "b_enc", "W_dec", "b_dec"))

    def activations(x: Tensor) -> Tensor:
        return torch.relu((x - b_dec) @ w_enc + b_enc)

    def added(x: Tensor) -> Tensor:
        for position in (3, 20):
            x[position] += 2.5 * 1.2 * w_dec[LATENT]
        return x

    def along(x: Tensor) -> Tensor:
        unit = w_dec[OTHER] / w_dec[OTHER].norm()
        return x + (4.0 - activations(x)[:, LATENT, None]) * w_dec[LATENT].norm() * unit

    cases: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = [
        (
            {"site": "resid", "layer": POINT, "op": "set", "source": {"sae": NAME}},
            lambda x: activations(x) @ w_dec + b_dec,
        ),
        (latent("add", 2.5, typical=1.2, positions=[3, 20]), added),
        (latent("set", 4.0), lambda x: x + (4.0 - activations(x)[:, LATENT, None]) * w_dec[LATENT]),
        (latent("set", 4.0, along=OTHER), along),
    ]
    for edit, by_hand in cases:
        found = logits(edited(model, edit))
        assert relative_error(found, bridge_logits(clean, by_hand)) <= 1e-4, edit
        assert relative_error(found, logits(clean)) > 1e-3, edit


def test_what_a_unit_of_a_latent_writes_follows_how_the_sae_decodes(model: LoadedModel, tmp_path: Path) -> None:
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(3)) * 4
    made = {
        "plain": tiny_saes.make(tmp_path / "saes" / "plain"),
        "rescaled": tiny_saes.edit_config(
            tiny_saes.make(tmp_path / "saes" / "rescaled"), rescale_acts_by_decoder_norm=True
        ),
        "normed": tiny_saes.edit_config(
            tiny_saes.make(tmp_path / "saes" / "normed"), normalize_activations="layer_norm"
        ),
        "constant": tiny_saes.edit_config(
            tiny_saes.make(tmp_path / "saes" / "constant"), normalize_activations="constant_norm_rescale"
        ),
    }
    for name, folder in made.items():
        sae = load_sae(read_info(folder), model.facts)
        rebuilt, activations = sae.reconstruct(x)
        active = int(activations[0].argmax())
        without = activations.clone()
        without[:, active] = 0
        sae.encode(x)
        with torch.no_grad():
            expected = rebuilt - sae.module.decode(without)
        found = activations[:, active, None] * written(sae, {active: 1.0}, x)
        assert torch.allclose(found, expected, atol=1e-4), name


def test_generated_positions_leave_the_prompt_and_steer_what_is_written(run: Callable[..., RunResult]) -> None:
    asked = (ProbeCall("continuation", {"tokens": 12}),)
    strong = latent("add", 40.0, typical=3.0)
    written = {
        name: run(*edits, calls=asked).tensor("continuation").tolist()
        for name, edits in {
            "clean": (),
            "generated": (parse_edit(strong | {"positions": "generated"}),),
            "all": (parse_edit(strong),),
        }.items()
    }
    assert written["generated"][0] == written["clean"][0]  # the first token is read off the prompt, which is untouched
    assert written["generated"] != written["clean"]
    assert written["all"] != written["generated"]
    clean = run()
    assert torch.equal(run(parse_edit(strong | {"positions": "generated"})).tensor("resid.3"), clean.tensor("resid.3"))


def test_a_continuation_is_drawn_by_its_seed(run: Callable[..., RunResult]) -> None:
    def drawn(**params: Any) -> list[int]:
        return run(calls=(ProbeCall("continuation", {"tokens": 12, **params}),)).tensor("continuation").tolist()

    first = drawn(temperature=1.5, seed=1)
    assert first != drawn(temperature=1.5, seed=2)
    assert first != drawn()
    assert drawn(temperature=1e-6, seed=5) == drawn()


def test_a_settled_edit_says_the_content_and_the_size(
    run: Callable[..., RunResult], model: LoadedModel, sae: LoadedSAE, home: Path
) -> None:
    clean = edited(model)
    largest = float(sae.encode(clean.resid(POINT))[:, LATENT].max())
    made = run(parse_edit(latent("add", 2.0)))
    said = made.info.request.edits[0].as_dict()["source"]
    assert said["content"] == content_digest(home)
    assert said["typical"] == pytest.approx(largest, rel=1e-6)
    assert made.info.forward_passes == 2  # one to see how large the latent is on this prompt
    again = run(made.info.request.edits[0])
    assert (again.info.run_id, again.info.forward_passes) == (made.info.run_id, 0)
    tiny_saes.edit_weights(home, b_dec=torch.ones(32))
    other = run(parse_edit(latent("add", 2.0, typical=largest)))
    assert other.info.capture_id != made.info.capture_id
    with pytest.raises(BadRequest, match="has changed since this edit was made"):
        run(made.info.request.edits[0])


def test_an_edit_reads_back_as_it_was_written() -> None:
    for given in (
        latent("add", 2.0, typical=1.5, along=3, content="ab"),
        latent("set", -1.0) | {"positions": "generated"},
        {"site": "resid", "layer": 1, "op": "set", "source": {"sae": NAME, "keep_error": True}},
    ):
        assert parse_edit(given).as_dict() == given
    assert "plus 2 x latent 7 of one" in str(parse_edit(latent("add", 2.0)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (latent("add", 1.0) | {"op": "set"}, "a latent with add goes with op add"),
        (latent("set", 1.0) | {"op": "add"}, "a latent with clamp goes with op set"),
        (latent("add", 1.0, clamp=2.0), 'one of "add" and "clamp"'),
        (latent("add", 1.0, typical=0), "typical must be above 0"),
        (latent("set", 1.0, typical=1.0), "typical must be above 0 and goes with add"),
        (latent("add", float("nan")), "add must be a finite number"),
        (latent("add", 1.0, index=-1), "latent must be a whole number from 0"),
        (latent("add", 1.0) | {"site": "mlp_out"}, "an SAE reads resid, not mlp_out"),
        (latent("add", 1.0) | {"dims": [1]}, "an SAE reads all dims"),
        (latent("add", 1.0) | {"positions": "written"}, "positions must be a list"),
        ({"site": "resid", "layer": 1, "op": "add", "source": {"sae": NAME}}, "goes with op set"),
        ({"site": "resid", "layer": 1, "op": "set", "source": {"sae": ""}}, "an SAE is named by a text"),
        ({"site": "resid", "layer": 1, "op": "set", "source": {"sae": NAME, "keep_error": 1}}, "true or false"),
        ({"site": "resid", "layer": 1, "op": "set", "source": {"latent": [NAME], "add": 1}}, "a source with an SAE is"),
        (
            {"site": "resid", "layer": 1, "op": "set", "source": {"run": "a"}, "positions": "generated"},
            "no states at generated",
        ),
    ],
)
def test_what_cannot_mean_anything_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says) as error:
        parse_edit(given)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_the_model_is_refused_before_anything_runs(
    run: Callable[..., RunResult], home: Path, store: Store
) -> None:
    tiny_saes.make(home.parent / "wide", d_in=48)
    wide = latent("add", 1.0)
    wide["source"]["latent"] = ["wide", 1]
    unknown = latent("add", 1.0)
    unknown["source"]["latent"] = ["nobody's", 1]
    for given, says in (
        (wide, "d_in is 48, but tiny-llama has 32"),
        (unknown, "No SAE is called"),
        (latent("add", 1.0) | {"layer": 1}, "reads point 2, so layer must be 2, not 1"),
        (latent("add", 1.0, index=64), "latent of one lies in 0..63, not 64"),
        (latent("set", 1.0, along=99), "along of one lies in 0..63, not 99"),
    ):
        with pytest.raises(BadRequest, match=says) as error:
            run(parse_edit(given))
        assert str(error.value).endswith(".")
    assert store.info()["runs"] == 0
