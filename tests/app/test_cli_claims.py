"""``claims list | run`` in one process on a tiny model: lines, documents, the table, and statuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.claims.registry import claims
from tests import tiny

Ran = tuple[int, str, str]
CLAIMS = ("reasoning-alpha", "reversal")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama"))


@pytest.fixture
def run(command_line: Callable[..., Ran], tmp_path: Path) -> Callable[..., Ran]:
    lines = [
        {"id": f"p{i}", "text": f"{i} {tiny.TEXT[i : i + 40]}", "group": ["reasoning", "factual"][i % 2]}
        for i in range(8)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command_line("sets", "import", str(path))[0] == 0
    return command_line


def test_the_claims_are_listed(command_line: Callable[..., Ran]) -> None:
    status, out, _ = command_line("claims", "list")
    assert status == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [claim.name for claim in claims()]
    assert rows[0][2] == "factual-reasoning"


def test_claims_are_run_told_and_written(run: Callable[..., Ran], model: str, tmp_path: Path) -> None:
    table = tmp_path / "claims.md"
    command = ("claims", "run", *CLAIMS, "--model", model, "--prompt-set", "own")
    status, out, err = run(*command, "--markdown", str(table))
    assert (status, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == list(CLAIMS)
    assert out.splitlines()[1].split("\t")[1] == "cannot be tested here"
    rows = table.read_text().splitlines()
    assert rows[0].startswith("| Claim | Verdict |")
    assert len(rows) == 2 + len(CLAIMS)
    assert "alpha (singular values)" in rows[2]
    status, out, _ = run(*command, "--json", "-")
    assert status == 0
    first, second = json.loads(out)["claims"]
    assert first["low"] < first["effect"] < first["high"]
    assert (first["n"], first["model"], first["prompts"], first["shuffled"]) == (8, model, "own", False)
    assert {"reported", "tested", "rule", "control", "control_is", "reason", "details", "unit"} <= first.keys()
    assert second["verdict"] == "cannot be tested here"
    assert second["effect"] is None


def test_the_control_of_the_bench(run: Callable[..., Ran], model: str) -> None:
    command = ("claims", "run", "reasoning-alpha", "--model", model, "--prompt-set", "own", "--json", "-")
    plain, shuffled = (json.loads(run(*command, *more)[1])["claims"][0] for more in ((), ("--shuffled",)))
    assert shuffled["shuffled"] is True
    assert shuffled["effect"] != plain["effect"]
    assert shuffled["verdict"] == "does not hold"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Name some claims, or give --all"),
        (("scaling", "--all"), "Name some claims, or give --all"),
        (("nothing",), "There is no claim 'nothing'"),
        (("scaling", "--shuffled"), "pairs nothing"),
        (("scaling", "--prompt-set", "nowhere"), "There is no prompt set 'nowhere'"),
        (("scaling", "--seed", "-1"), "The seed must be 0 or more"),
        (("scaling", "--json", "-", "--markdown", "-"), "Only one of --json and --markdown"),
        (("scaling", "--json", "/nowhere/x.json"), "--json must name a file"),
        (("scaling", "--model", "no-such-model"), "no-such-model"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(
    run: Callable[..., Ran], model: str, arguments: tuple[str, ...], says: str
) -> None:
    named = () if "--model" in arguments else ("--model", model)
    status, out, err = run("claims", "run", *arguments, *named)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
