"""``lens train | list | add``: a tuned lens on text files, its refusals, and Ctrl-C leaving a training to be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from app.cli import main
from probes.lenses.folder import PARAMS, installed_lenses
from probes.lenses.shelf import unfinished
from probes.lenses.work import in_training
from tests import tiny
from tests.serve import REPO


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("".join(f"{i}. {tiny.TEXT}\n" for i in range(60)), encoding="utf-8")
    return path


@pytest.fixture
def run(empty_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["app", "lens", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_it_trains_tells_the_held_out_divergence_and_lists_what_is_there(run, model: Path, notes: Path) -> None:
    asked = ["train", "--model", str(model), "--text-file", str(notes), "--name", "mine", "--tokens", "4000"]
    status, out, err = run(*asked)
    assert (status, err) == (0, "")
    first, head, *points = out.splitlines()
    assert first.startswith("mine\ttiny-llama\t3 points of 32 dimensions\theld-out KL, mean of all points: tuned ")
    assert head.split("\t") == ["point", "raw", "mean-corrected", "tuned"]
    assert [line.split("\t")[0] for line in points] == ["0", "1", "2"]
    assert run("list") == (0, first + "\n", "")
    status, out, err = run(*asked)
    assert (status, out) == (2, "")
    assert "There is a tuned lens called 'mine' already" in err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--name", "../x"], "name must be 1..64 letters"),
        (["--tokens", "5"], "tokens must lie in 2,048..20,000,000, not 5"),
        (["--learning-rate", "nan"], "learning rate must lie in"),
        (["--text-file", "/nowhere.txt"], "The file /nowhere.txt cannot be read"),
        (["--built-in"], "Give --text-file or --built-in, not both."),
        (["--resume"], "No training of a tuned lens is called 'mine'"),
    ],
)
def test_bad_input_is_one_sentence(run, model: Path, notes: Path, more: list[str], says: str) -> None:
    status, out, err = run("train", "--model", str(model), "--text-file", str(notes), "--name", "mine", *more)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err
    assert unfinished() == ()


def test_a_lens_from_elsewhere_is_added_or_refused(run, model: Path, notes: Path, tmp_path: Path) -> None:
    run("train", "--model", str(model), "--built-in", "--name", "mine", "--tokens", "2100")
    theirs = tmp_path / "theirs"
    installed_lenses()["mine"].rename(theirs)
    status, out, err = run("add", str(theirs), "--model", str(model), "--name", "second")
    assert (status, err) == (0, "")
    assert out.startswith("second\ttiny-llama\t3 points of 32 dimensions\ttrained elsewhere\t")
    other = tiny.save(tmp_path / "other", initializer_range=0.5)
    status, out, err = run("add", str(theirs), "--model", str(other), "--name", "third")
    assert (status, out) == (2, "")
    assert "was trained with another unembedding than that of" in err
    torch.save({"0.weight": print}, theirs / PARAMS)
    status, out, err = run("add", str(theirs), "--model", str(model), "--name", "third")
    assert (status, out) == (2, "")
    assert "holds plain tensors and nothing else" in err
    assert list(installed_lenses()) == ["second"]


def test_ctrl_c_exits_with_130_and_leaves_a_training_to_resume(run, model: Path, notes: Path, empty_home: Path) -> None:
    notes.write_text(notes.read_text() * 20)
    asked = ["--model", str(model), "--text-file", str(notes), "--name", "mine", "--tokens", "150000"]
    command = [sys.executable, "-m", "app", "lens", "train", *asked]
    environment = {**os.environ, "EIGENSCOPE_HOME": str(empty_home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    begun, until = in_training() / "mine" / "lock", time.monotonic() + 120
    while not begun.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "it can be resumed" in err
    (one,) = unfinished()
    assert 0 <= one.done < one.work.steps
    assert f"mine\t{model}\tunfinished, step {one.done:,} of {one.work.steps:,}" in run("list")[1]
    status, _, err = run("train", "--name", "mine", "--resume", "--model", "other")
    assert status == 2
    assert "began with the model" in err
    status, out, _ = run("train", "--name", "mine", "--resume")
    assert status == 0
    assert out.startswith("mine\t")
    assert unfinished() == ()
