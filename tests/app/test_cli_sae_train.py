"""``sae train``: an SAE on own text files, its refusals, and Ctrl-C leaving a training to be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.cli import main
from probes.saes.folder import read_info
from probes.saes.own_folder import in_training, unfinished
from tests import tiny
from tests.serve import REPO

pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated:DeprecationWarning")


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
        monkeypatch.setattr(sys, "argv", ["app", "sae", "train", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def _asked(model: Path, notes: Path, name: str = "mine") -> list[str]:
    small = ["--width", "2x", "--k", "4", "--layer", "2"]
    return ["--model", str(model), "--text-file", str(notes), "--name", name, *small]


def test_it_trains_and_says_the_held_out_numbers(run, model: Path, notes: Path, empty_home: Path) -> None:
    status, out, err = run(*_asked(model, notes), "--tokens", "4000", "--epochs", "1", "--seed", "3")
    assert (status, err) == (0, "")
    first, *warning = out.splitlines()
    name, *numbers, folder = first.split("\t")
    assert name == "mine"
    assert [number.rpartition(" ")[0] for number in numbers] == [
        "explained variance",
        "l0",
        "cosine",
        "dead share",
        "n",
    ]
    assert Path(folder) == empty_home / "saes" / "mine"
    info = read_info(Path(folder))
    assert (info.point, info.d_sae, info.k, info.stored_dtype) == (2, 64, 4, "float32")
    assert 3_000 < (info.training_tokens or 0) <= 4_000
    assert all(line.startswith("training warning") for line in warning)
    status, out, err = run(*_asked(model, notes))
    assert (status, out) == (2, "")
    assert "There is an SAE called 'mine' already" in err


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--layer", "9"], 2, "point must lie in 1..3"),
        (["--width", "999x"], 2, "width must lie in 8..2048"),
        (["--k", "0"], 2, "k must lie in 1..512, not 0"),
        (["--name", "../x"], 2, "name must be 1..64 letters"),
        (["--text-file", "/nowhere.txt"], 2, "The file /nowhere.txt cannot be read"),
        (["--learning-rate", "nan"], 2, "learning rate must lie in"),
        (["--resume"], 2, "No training is called 'mine'"),
    ],
)
def test_bad_input_is_one_sentence(run, model: Path, notes: Path, more: list[str], status: int, says: str) -> None:
    found, out, err = run(*_asked(model, notes), *more)
    assert (found, out) == (status, "")
    assert err.count("\n") == 1
    assert says in err
    assert unfinished() == ()


def test_what_does_not_fit_exits_with_3(run, model: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    status, _, err = run(*_asked(model, notes))
    assert status == 3
    assert "fewer tokens or at a smaller width" in err


def test_ctrl_c_exits_with_130_and_leaves_a_training_to_resume(run, model: Path, notes: Path, empty_home: Path) -> None:
    command = [sys.executable, "-m", "app", "sae", "train", *_asked(model, notes), "--epochs", "100", "--width", "32x"]
    environment = {**os.environ, "EIGENSCOPE_HOME": str(empty_home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log, until = in_training() / "mine" / "training_log.csv", time.monotonic() + 120
    while not log.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Stopped after step" in err
    assert "can be resumed" in err
    (begun,) = unfinished()
    assert begun.done > 0
    status, _, err = run("--name", "mine", "--resume", "--layer", "3")
    assert status == 2
    assert "began with point 2, not 3" in err
    status, out, _ = run("--name", "mine", "--resume")
    assert status == 0
    assert out.startswith("mine\texplained variance")
    assert unfinished() == ()
