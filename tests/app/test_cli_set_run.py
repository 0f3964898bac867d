"""``run --prompt-set`` in one process, on a tiny model: the document, the keys, what is refused, and the statuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from probes import sweep as sweeping
from probes.plan import LIMIT_VARIABLE
from tests import tiny

Ran = tuple[int, str, str]
PROBES = ("--probes", "tokens,sinks,massive,lens,events")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama"))


@pytest.fixture
def run(command_line: Callable[..., Ran]) -> Callable[..., Ran]:
    return command_line


def imported(run: Callable[..., Ran], folder: Path, *prompts: dict[str, object]) -> None:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    assert run("sets", "import", str(path))[0] == 0


SHORT = {"id": "a", "text": tiny.TEXT[:50], "group": "left", "answer": "x"}
OTHER = {"id": "b", "text": tiny.TEXT[2:52], "group": "right"}
LONG = {"id": "c", "text": tiny.TEXT * 3}
CHAT = {"id": "d", "messages": [{"role": "user", "content": "hi"}]}


def test_one_document_with_every_run(run: Callable[..., Ran], model: str, tmp_path: Path) -> None:
    imported(run, tmp_path, SHORT, OTHER, LONG, CHAT)
    status, out, err = run("run", "--model", model, "--prompt-set", "own", *PROBES, "--json", "-")
    assert status == 0
    document = json.loads(out)
    assert document["prompt_set"]["name"] == "own"
    assert (document["prompt_set"]["n_prompts"], document["prompt_set"]["made"]) == (4, 2)
    first, second = document["runs"]
    assert first["prompt"] == {"id": "a", "group": "left", "answer": "x", "response": None}
    assert second["prompt"]["id"] == "b"
    assert (first["run"]["cached"], first["run"]["forward_passes"], first["run"]["n_tokens"]) == (False, 1, 51)
    assert first["run"]["notes"][-1].startswith("Its forward pass was shared with 1 other prompt ")
    assert first["tokens"][0]["token_id"] == 1
    assert {"token_metrics", "head_metrics", "massive", "events"} <= first.keys()
    reasons = {row["id"]: row["reason"] for row in document["refused"]}
    assert "at most 256" in reasons["c"]
    assert "no chat template" in reasons["d"]
    assert err.splitlines() == [f"refused\t{name}\t{reasons[name]}" for name in ("c", "d")]


def test_the_runs_are_those_of_single_commands(run: Callable[..., Ran], model: str, tmp_path: Path) -> None:
    imported(run, tmp_path, SHORT, OTHER)
    out_file = tmp_path / "out.json"
    command = ("run", "--model", model, "--prompt-set", "own", *PROBES, "--json", str(out_file))
    assert run(*command) == (0, "", "")
    runs = json.loads(out_file.read_text())["runs"]
    for prompt, entry in zip((SHORT, OTHER), runs, strict=True):
        single = ("run", "--model", model, "--text", str(prompt["text"]), *PROBES, "--positions", "sample")
        _, out, _ = run(*single, "--json", "-")
        found = json.loads(out)
        assert found["run"]["run_id"] == entry["run"]["run_id"]
        assert found["run"]["cached"] is True
        assert found["token_metrics"] == entry["token_metrics"]
    assert run(*command) == (0, "", "")
    again = json.loads(out_file.read_text())
    assert again["prompt_set"]["made"] == 0
    assert [entry["run"]["cached"] for entry in again["runs"]] == [True, True]
    assert [entry["head_metrics"] for entry in again["runs"]] == [entry["head_metrics"] for entry in runs]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--prompt-set", "nothing"), "There is no prompt set 'nothing'"),
        (("--prompt-set", "idioms", "--text", "hi"), "exactly one of --text, --text-file, --messages and --prompt-set"),
        (("--prompt-set", "idioms", "--session", "mine"), "--session keeps one run"),
        (("--prompt-set", "idioms", "--probes", "nothing"), "No probe is called"),
        (("--prompt-set", "idioms", "--json", "/nowhere/out.json"), "--json must name a file"),
        (("--prompt-set", "idioms", "--chat"), "no chat template"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(
    run: Callable[..., Ran], model: str, more: tuple[str, ...], says: str
) -> None:
    status, out, err = run("run", "--model", model, "--json", "-", *more)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_set_that_nowhere_fits_is_a_refused_plan(
    run: Callable[..., Ran], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(run, tmp_path, SHORT, OTHER)
    monkeypatch.setenv(LIMIT_VARIABLE, "1000")
    status, out, err = run("run", "--model", model, "--prompt-set", "own", "--json", "-")
    assert (status, out) == (3, "")
    assert LIMIT_VARIABLE in err


def test_an_interrupted_sweep_is_status_130_and_goes_on(
    run: Callable[..., Ran], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(run, tmp_path, SHORT, {**OTHER, "text": tiny.TEXT})
    batch, calls = sweeping.forward_batch, []

    def stopping(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return batch(*arguments)

    monkeypatch.setattr(sweeping, "forward_batch", stopping)
    command = ("run", "--model", model, "--prompt-set", "own", *PROBES, "--json", str(tmp_path / "out.json"))
    status, out, _ = run(*command)
    assert (status, out) == (130, "")
    assert not (tmp_path / "out.json").exists()
    assert run(*command)[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["prompt_set"]["made"] == 1
