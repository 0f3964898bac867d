"""``run --generate``: one prompt, and every prompt of a set, on a tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny

Ran = tuple[int, str, str]
PROBES = ("--probes", "tokens,sinks")
HOW = ("--generate", "12", "--temperature", "1", "--seed", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama"))


def test_prompt_and_response_are_one_document(command_line: Callable[..., Ran], model: str) -> None:
    status, out, err = command_line("run", "--model", model, "--text", tiny.TEXT[:40], *PROBES, *HOW, "--json", "-")
    assert (status, err) == (0, "")
    document = json.loads(out)
    rows = {row["metric"]: row["value"] for row in document["layer_metrics"] if row["layer"] is None}
    assert rows["response_start"] == 41
    assert 41 < document["run"]["n_tokens"] <= 53
    assert document["run"]["notes"][-1].startswith("The model wrote tokens 41 to ")
    again = json.loads(command_line("run", "--model", model, "--text", tiny.TEXT[:40], *PROBES, *HOW, "--json", "-")[1])
    assert again["run"]["cached"] is True


def test_bad_numbers_are_refused(command_line: Callable[..., Ran], model: str) -> None:
    for bad in ("0", "513"):
        status, _, err = command_line("run", "--model", model, "--text", "x", "--generate", bad, "--json", "-")
        assert status == 2
        assert "continuation.tokens must be a whole number from 1 to 512" in err


def test_a_set_is_answered_with_the_shift_over_prompts(
    command_line: Callable[..., Ran], model: str, tmp_path: Path
) -> None:
    prompts = [{"id": f"p{i}", "text": tiny.TEXT[i : i + 40], "answer": "yes"} for i in range(3)]
    prompts.append({"id": "long", "text": tiny.TEXT * 3})
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    assert command_line("sets", "import", str(path))[0] == 0
    out_file = tmp_path / "out.json"
    status, _, err = command_line(
        "run", "--model", model, "--prompt-set", "own", *PROBES, *HOW, "--json", str(out_file)
    )
    assert status == 0
    assert err.startswith("refused\tlong\t")
    document = json.loads(out_file.read_text())
    assert [one["id"] for one in document["responses"]] == ["p0", "p1", "p2"]
    first = document["responses"][0]
    assert first["right"] in (True, False)
    assert len(first["prompt_alpha"]) == 4
    assert document["shift"]["exploratory"] is True
    assert document["shift"]["overall"]["n"] == 3
    assert [row["layer"] for row in document["shift"]["table"]] == [0, 1, 2, 3]
    assert [one["id"] for one in document["refused"]] == ["long"]
