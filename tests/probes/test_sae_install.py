"""Taking SAEs in: folders of SAELens and sparsify, releases of the hub, and nothing half there when it goes wrong."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from probes.errors import BadRequest
from probes.progress import Progress
from probes.saes.config import CONFIG, WEIGHTS, SAEFormatError
from probes.saes.folder import installed_saes, read_info, saes_folder
from probes.saes.hub import fetch_sae, resolve
from probes.saes.install import add_folder, as_name, open_sparsify
from probes.saes.loading import open_sae
from tests.tiny_saes import edit_config, edit_weights, make, make_sparsify


def states(n: int = 30) -> torch.Tensor:
    return 2 * torch.randn(n, 32, generator=torch.Generator().manual_seed(3))


def test_a_folder_is_added_whole_and_only_once(empty_home: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    (folder / "README.md").write_text("A card.")
    (folder / "trainer_state.pt").write_bytes(b"anything")
    info = add_folder(folder)
    assert info.folder == empty_home / "saes" / "mine"
    assert sorted(path.name for path in info.folder.iterdir()) == ["README.md", CONFIG, WEIGHTS]
    assert info.card == "A card."
    assert torch.equal(open_sae(info).encode(states()), open_sae(read_info(folder)).encode(states()))
    with pytest.raises(BadRequest, match="An SAE called mine is installed already"):
        add_folder(folder)
    assert add_folder(folder, "a second one").name == "a second one"
    assert [path.name for path in sorted(saes_folder().iterdir())] == ["a second one", "mine"]


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "x\x1b[31m", "ends.", "‮gnp", "a" * 121, "a\nb"])
def test_names_that_lead_elsewhere_are_refused(name: str, empty_home: Path, tmp_path: Path) -> None:
    with pytest.raises(SAEFormatError, match="An SAE cannot be called") as refused:
        add_folder(make(tmp_path / "mine"), name)
    assert str(refused.value).isprintable()
    assert not saes_folder().exists()


def test_what_is_no_sound_sae_is_not_installed(empty_home: Path, tmp_path: Path) -> None:
    bad = edit_weights(make(tmp_path / "bad"), b_dec=torch.full((32,), torch.nan))
    with pytest.raises(SAEFormatError, match="b_dec holds values that are not finite"):
        add_folder(bad)
    with pytest.raises(BadRequest, match="There is no folder"):
        add_folder(tmp_path / "nowhere")
    assert list(saes_folder().iterdir()) == []
    assert add_folder(make(tmp_path / "good")).name == "good"


def test_a_name_is_made_of_any_text() -> None:
    assert as_name("gpt2-small-res-jb-blocks.8.hook_resid_pre") == "gpt2-small-res-jb-blocks.8.hook_resid_pre"
    assert as_name("../layer_20/width 16k/<b>") == "layer_20-width-16k-b"
    assert as_name("///") == "sae"


@pytest.mark.parametrize("normalize_decoder", [True, False])
def test_a_sparsify_folder_encodes_as_sparsify_does(normalize_decoder: bool, empty_home: Path, tmp_path: Path) -> None:
    w = make_sparsify(tmp_path / "run" / "layers.1", normalize_decoder=normalize_decoder)
    info = add_folder(tmp_path / "run" / "layers.1")
    assert (info.name, info.model_name, info.hook_name) == (
        "tiny-llama-layers.1",
        "org/tiny-llama",
        "blocks.1.hook_resid_post",
    )
    assert (info.architecture, info.k, info.d_sae, info.context_size) == ("topk", 5, 64, 96)
    x = states()
    pre = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    f = pre * (pre >= pre.sort(dim=1, descending=True).values[:, 4:5])
    rebuilt, activations = open_sae(info).reconstruct(x)
    assert (activations - f).abs().max() <= 1e-5
    assert (rebuilt - (f @ w["W_dec"] + w["b_dec"])).abs().max() <= 1e-5


def test_sparsify_places_and_refusals(tmp_path: Path) -> None:
    make_sparsify(tmp_path / "run" / "layers.2.mlp", num_latents=64)
    assert open_sparsify(tmp_path / "run" / "layers.2.mlp").cfg.metadata.hook_name == "blocks.2.hook_mlp_out"
    for name, config, says in [
        ("h.3", {}, "is called after its layer, such as layers.5"),
        ("layers.3", {"activation": "groupmax"}, "the activation 'groupmax' is not supported"),
        ("layers.4", {"transcode": True}, "transcode of sparsify is not supported"),
        ("layers.5", {"k": 65}, "k must be a whole number in 1..64"),
        ("layers.6", {"num_latents": 128}, r"encoder.weight must have the shape \[128, 32\]"),
    ]:
        make_sparsify(tmp_path / "run" / name, **config)
        with pytest.raises(SAEFormatError, match=says):
            open_sparsify(tmp_path / "run" / name)
    with pytest.raises(SAEFormatError, match="a folder of EleutherAI's sparsify; take it in with"):
        read_info(tmp_path / "run" / "layers.3")


@pytest.mark.parametrize(
    ("asked", "repo_id", "path", "model", "loader"),
    [
        ("gpt2-small-res-jb/blocks.8.hook_resid_pre", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre",
         "gpt2-small", "sae_lens"),
        ("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical", "google/gemma-scope-2b-pt-res",
         "layer_20/width_16k/average_l0_71", "gemma-2-2b", "gemma_2"),
        ("someone/some-saes/layer/3", "someone/some-saes", "layer/3", "", "sae_lens"),
    ],
)  # fmt: skip
def test_hub_ids_resolve_by_the_directory(asked: str, repo_id: str, path: str, model: str, loader: str) -> None:
    found = resolve(asked)
    assert (found.repo_id, found.path, found.model, found.loader) == (repo_id, path, model, loader)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("gpt2-small-res-jb", "is no SAE of the hub: give release/sae_id"),
        ("../../etc/passwd", "is no SAE of the hub"),
        ("a/../b/c", "is no SAE of the hub"),
        ("gpt2-small-res-jb/<script>", "is no SAE of the hub"),
        ("gpt2-small-res-jp/blocks.8.hook_resid_pre", "did you mean gpt2-small-res-jb"),
        ("gpt2-small-res-jb/blocks.99", "has 13 SAEs, none called 'blocks.99'; some are blocks"),
        ("gpt2-small-hook-z-kk/blocks.0.hook_z", "pickled weights, which can run code and are never opened"),
    ],
)
def test_hub_ids_that_mean_nothing_are_refused_without_a_network(asked: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        resolve(asked)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def snapshot(cache: Path, repo: str) -> Path:
    """Where the cache keeps the files of a repository."""
    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return place / "snapshots" / ("0" * 40)


def test_without_a_network_a_fetch_says_so(empty_home: Path, hub_cache: Path) -> None:
    with pytest.raises(ConnectionError, match="The hub cannot be reached to fetch gpt2-small-res-jb/") as said:
        fetch_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre", Progress())
    assert "\n" not in str(said.value)
    assert not saes_folder().exists() or list(saes_folder().iterdir()) == []


def test_a_release_in_the_hubs_cache_is_fetched_checked_and_installed(empty_home: Path, hub_cache: Path) -> None:
    there = make(
        snapshot(hub_cache, "jbloom/GPT2-Small-SAEs-Reformatted") / "blocks.8.hook_resid_pre",
        "standard",
        hook="blocks.8.hook_resid_pre",
        model_name="gpt2-small",
    )
    info = fetch_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre", Progress())
    assert info.name == "gpt2-small-res-jb-blocks.8.hook_resid_pre"
    assert (info.hook_name, info.point, info.model_name) == ("blocks.8.hook_resid_pre", 8, "gpt2-small")
    assert info.source == "gpt2-small-res-jb/blocks.8.hook_resid_pre (jbloom/GPT2-Small-SAEs-Reformatted)"
    assert torch.equal(open_sae(info).encode(states()), open_sae(read_info(there)).encode(states()))
    assert fetch_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre", Progress()) == info


def test_a_sparsify_repository_goes_through_the_corrected_loader(empty_home: Path, hub_cache: Path) -> None:
    w = make_sparsify(snapshot(hub_cache, "someone/sae-tiny") / "layers.3")
    info = fetch_sae("someone/sae-tiny/layers.3", Progress())
    assert (info.name, info.model_name, info.point) == ("someone-sae-tiny-layers.3", "org/tiny-llama", 4)
    pre = torch.relu((states() - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    f = pre * (pre >= pre.sort(dim=1, descending=True).values[:, 4:5])
    assert (open_sae(info).encode(states()) - f).abs().max() <= 1e-5


def test_an_unsound_release_leaves_nothing_behind(empty_home: Path, hub_cache: Path) -> None:
    folder = snapshot(hub_cache, "someone/saes") / "layer"
    edit_weights(make(folder, "standard"), W_dec=torch.full((64, 32), torch.inf))
    with pytest.raises(SAEFormatError, match="W_dec holds values that are not finite"):
        fetch_sae("someone/saes/layer", Progress())
    edit_config(folder, architecture="temporal")
    with pytest.raises(SAEFormatError):
        fetch_sae("someone/saes/layer", Progress())
    (folder / CONFIG).write_text("{")
    with pytest.raises(SAEFormatError, match="is no valid JSON"):
        fetch_sae("someone/saes/layer", Progress())
    save_file({}, folder / WEIGHTS)
    make(folder, "standard")
    assert list(saes_folder().iterdir()) == []
    assert [sae.name for sae in installed_saes() if not (sae.info and sae.info.shipped)] == []
    assert fetch_sae("someone/saes/layer", Progress()).name == "someone-saes-layer"
