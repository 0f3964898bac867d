"""Training on own text: put down and taken up it ends with the same bytes, killed it leaves whole files, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from probes.errors import BadRequest, NonFinite, PlanRefused
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes.activations import CONTEXT, collect_states
from probes.saes.fitting import CHECKPOINT, LOG, steps_done
from probes.saes.folder import WEIGHTS, installed_saes, read_info, sae_lens
from probes.saes.loading import choose, load_sae
from probes.saes.own_folder import discard, in_training, live_log, unfinished
from probes.saes.own_request import OwnRequest, Text, check_name, read_text
from probes.saes.own_text import chunk_texts, count_tokens
from probes.saes.training import begin, proceed
from probes.training_lock import locked
from tests.tiny import loaded, tokenizer

WORDS = ["water", "stone", "bridge", "paper", "letter", "number", "window", "garden", "market", "silver"]
TEXTS = tuple(
    Text(f"page {i}.txt", " ".join(WORDS[(i * j * j + i + j) % 10] for j in range(200 + 20 * i))) for i in range(12)
)
REQUEST = OwnRequest("mine", "tiny-llama", point=2, width="2x", k=4, tokens=10_000, epochs=8.0)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


@pytest.fixture(autouse=True)
def one_thread(empty_home: Path) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stop:
    """Cancels at the n-th step that is reported with ``word`` in it."""

    def __init__(self, word: str, after: int) -> None:
        self.word, self.left, self.seen = word, after, list[tuple[float, str]]()

    def progress(self) -> Progress:
        return Progress(self._step, lambda: self.left <= 0)

    def _step(self, fraction: float, what: str) -> None:
        self.seen.append((fraction, what))
        self.left -= self.word in what


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def _trained(model: LoadedModel, name: str, **changes: object) -> Path:
    request = replace(REQUEST, name=name, **changes)  # type: ignore[arg-type]
    begin(request, TEXTS, model)
    return proceed(name, model, Progress())


def test_cancelled_twice_and_resumed_it_ends_with_the_same_bytes(model: LoadedModel) -> None:
    whole = _trained(model, "whole")
    begin(REQUEST, TEXTS, model)
    with pytest.raises(Cancelled, match="while states were collected"):
        proceed("mine", model, Stop("residual states", 3).progress())
    for steps in (7, 40):
        with pytest.raises(Cancelled, match=r"Stopped after step \d+ of .* can be resumed"):
            proceed("mine", model, Stop("step", steps).progress())
        (begun,) = unfinished()
        assert begun.done >= steps
        assert begun.steps >= begun.done
        assert live_log("mine")["step"].iloc[-1] <= begun.done
    assert [sae.name for sae in installed_saes() if not sae.info or not sae.info.shipped] == ["whole"]
    out = proceed("mine", model, Progress())
    assert all(torch.equal(weight, _weights(whole)[key]) for key, weight in _weights(out).items())
    assert (out / LOG).read_text() == (whole / LOG).read_text()
    assert unfinished() == ()
    assert not (in_training() / "mine").exists()


def test_a_checkpoint_is_written_in_time_and_progress_only_grows(model: LoadedModel) -> None:
    begin(REQUEST, TEXTS, model)
    watch, held = Stop("nothing", 1), set[int]()
    folder = in_training() / "mine"

    def look(fraction: float, what: str) -> None:
        watch._step(fraction, what)
        held.add(steps_done(folder))

    proceed("mine", model, Progress(look), every=0.0)
    assert len(held) > 20
    fractions = [fraction for fraction, _ in watch.seen]
    assert fractions == sorted(fractions)
    assert "explained variance" in watch.seen[-2][1]


def test_the_result_is_installed_and_sae_lens_gives_equal_outputs(model: LoadedModel) -> None:
    out = _trained(model, "mine")
    info = read_info(out)
    assert (info.point, info.k, info.d_sae, info.d_in, info.model_name) == (2, 4, 64, 32, "tiny-llama")
    assert choose("mine", model.facts) == info
    held = chunk_texts(TEXTS, model.tokenizer, model.facts.bos_id, REQUEST.tokens, 0).held_out
    x = collect_states(model, held, 2, out / "states", Progress()).resid.float()
    theirs = sae_lens().SAE.load_from_disk(out)
    ours = load_sae(info, model.facts)
    rebuilt, activations = ours.reconstruct(x)
    assert torch.allclose(theirs.encode(x), activations, atol=1e-5)
    assert torch.allclose(theirs(x), rebuilt, atol=1e-5)
    weights = _weights(out)
    by_hand = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).topk(4, dim=1)
    assert torch.allclose(by_hand.values.relu().sum(dim=1), activations.sum(dim=1), atol=1e-4)
    assert info.corpus_variance is not None
    variance = 1 - (x - rebuilt).double().square().sum(dim=1).mean().item() / info.corpus_variance
    card = (out / "README.md").read_text()
    assert f"{variance:.4f}" in card
    assert "whole documents, of which nothing was trained on" in card
    assert "`page 3.txt`" in card


def test_a_poor_one_warns_on_its_card_and_in_its_remark(model: LoadedModel) -> None:
    info = read_info(_trained(model, "poor", epochs=0.1, learning_rate=1e-6))
    assert info.remark.startswith("training warning: explained variance on held-out text is ")
    assert "below 0.5" in info.remark
    assert "**Training warning: explained variance" in (info.card or "")


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(
    model: LoadedModel, tmp_path: Path, empty_home: Path
) -> None:
    whole = _trained(model, "whole", epochs=40.0)
    begin(replace(REQUEST, epochs=40.0), TEXTS, model)
    script = (
        "import torch; torch.set_num_threads(1)\n"
        "from tests.tiny import loaded; from probes.progress import Progress; from probes.saes.training import proceed\n"
        "proceed('mine', loaded('llama'), Progress(), every=0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "EIGENSCOPE_HOME": str(empty_home)})
    until = time.monotonic() + 90
    while steps_done(in_training() / "mine") < 20 and time.monotonic() < until:
        time.sleep(0.02)
    assert unfinished()[0].busy
    with pytest.raises(BadRequest, match="running already"):
        proceed("mine", model, Progress())
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    (begun,) = unfinished()
    assert 20 <= begun.done < begun.steps
    assert not begun.busy
    out = proceed("mine", model, Progress())
    assert all(torch.equal(weight, _weights(whole)[key]) for key, weight in _weights(out).items())


def test_a_damaged_checkpoint_costs_the_steps_not_the_training(model: LoadedModel) -> None:
    begin(REQUEST, TEXTS, model)
    with pytest.raises(Cancelled):
        proceed("mine", model, Stop("step", 5).progress())
    checkpoint = in_training() / "mine" / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert unfinished()[0].done == 0
    out, whole = proceed("mine", model, Progress()), _trained(model, "whole")
    assert all(torch.equal(weight, _weights(whole)[key]) for key, weight in _weights(out).items())


def test_what_was_installed_but_not_cleared_away_is_cleared_away(model: LoadedModel, tmp_path: Path) -> None:
    begin(REQUEST, TEXTS, model)
    kept = tmp_path / "kept"
    os.rename(in_training() / "mine", kept)
    out = _trained(model, "mine")
    stamp = (out / WEIGHTS).stat().st_mtime_ns
    os.rename(kept, in_training() / "mine")
    assert proceed("mine", model, Progress()) == out
    assert unfinished() == ()
    assert (out / WEIGHTS).stat().st_mtime_ns == stamp


def test_names_are_plain_new_and_no_paths(model: LoadedModel) -> None:
    for name in ("", ".hidden", "../up", "a/b", "a\\b", "a b", "auto", "x" * 65, "end.", "a\nb", "né"):
        with pytest.raises(BadRequest, match="name must be"):
            replace(REQUEST, name=name)
    _trained(model, "mine", epochs=0.1)
    for name in ("mine", "MINE"):
        with pytest.raises(BadRequest, match="There is an SAE called 'mine' already"):
            check_name(name)
    with pytest.raises(BadRequest, match="There is an SAE called"):
        begin(REQUEST, TEXTS, model)
    begin(replace(REQUEST, name="other"), TEXTS, model)
    with pytest.raises(BadRequest, match="begun already: resume it, discard it"):
        begin(replace(REQUEST, name="other"), TEXTS, model)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"point": 4}, "point must lie in 1..3 for tiny-llama, not 4"),
        ({"point": 0}, "point must lie in 1"),
        ({"width": "eight"}, "width must be a number of latents or a multiple such as 8x"),
        ({"width": "100x"}, "width must lie in 8..2048 latents"),
        ({"width": "7"}, "width must lie in 8..2048 latents"),
        ({"width": "16", "k": 17}, "k must lie in 1..16 for a width of 16, not 17"),
        ({"k": 0}, "k must lie in 1..512, not 0"),
        ({"tokens": 100}, "tokens must lie in 2,032..20,000,000, not 100"),
        ({"epochs": float("nan")}, "epochs must lie in 0.1..100, not nan"),
        ({"learning_rate": 1.0}, "learning rate must lie in 1e-06..0.1, not 1"),
        ({"seed": -1}, "seed must lie in 0"),
    ],
)
def test_values_out_of_range_are_named_with_their_range(model: LoadedModel, changes: dict, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        begin(replace(REQUEST, **changes), TEXTS, model)
    assert says in str(refused.value)
    assert unfinished() == ()


def test_too_little_text_and_files_that_are_no_text_are_refused(model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match="there must be at least 16 and 1, so give about 2,286 tokens or more"):
        begin(REQUEST, TEXTS[:1], model)
    for content, says in ((b"\xff\xfe\x00", "not UTF-8"), (b"a\0b", "zero bytes"), (b" \n", "is empty")):
        with pytest.raises(BadRequest, match=says):
            read_text("notes.txt", content)
    assert read_text("notes.txt", b"\xef\xbb\xbfa\r\nb").text == "a\nb"


def test_what_does_not_fit_on_disk_or_in_memory_is_refused_before(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000000")
    with pytest.raises(PlanRefused, match=r"MB of memory, but 0 MB may be used .* fewer tokens or at a smaller width"):
        begin(REQUEST, TEXTS, model)
    monkeypatch.delenv("EIGENSCOPE_MEMORY_LIMIT")
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 100_000}))
    with pytest.raises(PlanRefused, match=r"MB on disk, but 0 MB are free .* fewer tokens or at a smaller width"):
        begin(REQUEST, TEXTS, model)
    assert unfinished() == ()


def test_a_rate_that_explodes_is_told_with_the_rate(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(replace(REQUEST, learning_rate=0.1), TEXTS, model)
    monkeypatch.setattr("probes.saes.fitting.TopKTrainer.update", _explode)
    with pytest.raises(NonFinite, match=r"loss became nan at step 3; a lower learning rate than 0.1 may help"):
        proceed("mine", model, Progress())


def _explode(trainer: object, x: torch.Tensor) -> float:
    raise ValueError("the training loss became nan at step 3")


def test_another_model_of_that_name_does_not_go_on(model: LoadedModel) -> None:
    begin(REQUEST, TEXTS, model)
    with pytest.raises(BadRequest, match="began with other weights of tiny-llama"):
        proceed("mine", loaded("gpt2"), Progress())


def test_discarding_takes_all_of_it_unless_it_runs(model: LoadedModel) -> None:
    begun = begin(REQUEST, TEXTS, model)
    with locked(begun.folder, begun.request.name), pytest.raises(BadRequest, match="running already"):
        discard("mine")
    discard("mine")
    assert not begun.folder.exists()
    with pytest.raises(BadRequest, match="No training is called"):
        discard("../saes")


def test_an_unreadable_training_is_left_out_of_the_list(model: LoadedModel) -> None:
    begun = begin(REQUEST, TEXTS, model)
    content = json.loads((begun.folder / "request.json").read_text())
    for broken in ("{", json.dumps(content | {"request": {**content["request"], "name": "../x"}}), "[]"):
        (begun.folder / "request.json").write_text(broken)
        assert unfinished() == ()


def test_documents_are_held_out_whole_and_a_single_one_by_its_end() -> None:
    reader = tokenizer()
    chunks = chunk_texts(TEXTS, reader, 1, 10**6, seed=0)
    assert chunks.split == "documents"
    assert not {*chunks.train.sources} & {*chunks.held_out.sources}
    assert (chunks.train.ids[:, 0] == 1).all()
    total = sum(len(one.text) for one in TEXTS)
    assert 0.05 * total < len(chunks.held_out.ids) * CONTEXT < 0.25 * total
    joined = Text("one.txt", "".join(f"{i:06d} " for i in range(2000)))
    alone = chunk_texts([joined], reader, 1, 10**6, seed=0)
    assert alone.split == "last tenth"
    last = max(int(part) for row in alone.train.ids for part in reader.decode(row[1:]).split() if len(part) == 6)
    first = min(int(part) for row in alone.held_out.ids for part in reader.decode(row[1:]).split() if len(part) == 6)
    assert last < first
    assert first >= 1799


def test_short_documents_are_joined_and_the_budget_holds() -> None:
    short = [Text(f"{i}", f"prompt {i} " * 4) for i in range(200)]
    chunks = chunk_texts(short, tokenizer(), 1, 20 * 127, seed=0)
    assert len(chunks.train.ids) == 20
    text = tokenizer().decode(chunks.train.ids[0][1:])
    assert "\n\nprompt" in text
    assert count_tokens(short, tokenizer()) == (sum(len(one.text) for one in short), True)


def test_special_tokens_in_own_text_are_text() -> None:
    chunks = chunk_texts([Text("a", "<mark> is text. " * 400)], tokenizer(), 1, 10**6, seed=0)
    assert not (chunks.train.ids[:, 1:] < 4).any()
