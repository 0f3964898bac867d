"""``sets list | show | import | remove`` in one process: documents, exit statuses, one sentence on stderr."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Ran = tuple[int, str, str]
LINES = (
    '{"id": "a", "text": "The river runs", "group": "short", "answer": "east"}\n'
    '{"id": "b", "messages": [{"role": "user", "content": "Where\\nto?"}]}\n'
)


@pytest.fixture
def run(command_line: Callable[..., Ran]) -> Callable[..., Ran]:
    return command_line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text(LINES)
    return path


def test_a_set_is_imported_listed_shown_and_removed(run: Callable[..., Ran], file: Path, tmp_path: Path) -> None:
    status, out, err = run("sets", "import", str(file))
    assert (status, err) == (0, "")
    set_id, name, size = out.strip().split("\t")
    assert (name, size) == ("own", "2 prompts")
    assert run("sets", "import", str(file))[0] == 0
    listed = run("sets", "list")[1].splitlines()
    assert listed[0] == "factual-reasoning\t128 prompts\tfactual 64, reasoning 64\tbuilt in"
    assert listed[-1] == "own\t2 prompts\tshort 1\town.jsonl"
    assert run("sets", "show", "own")[1] == "a\tshort\tThe river runs\teast\nb\t\tWhere⏎to?\t\n"
    document = json.loads(run("sets", "show", "own", "--json", "-")[1])
    assert document["prompt_set"] == {
        "set_id": set_id, "name": "own", "source": "own.jsonl", "n_prompts": 2, "groups": {"short": 1},
    }  # fmt: skip
    assert document["prompts"] == [json.loads(line) for line in LINES.splitlines()]
    out_file = tmp_path / "set.json"
    assert run("sets", "show", "own", "--json", str(out_file)) == (0, "", "")
    assert json.loads(out_file.read_text()) == document
    assert run("sets", "remove", "own") == (0, "removed\town\n", "")
    assert "own" not in run("sets", "list")[1]


def test_a_broken_line_is_refused_and_nothing_is_there(run: Callable[..., Ran], file: Path) -> None:
    file.write_text(LINES + '{"id": "c", "text": "y", "grup": "x"}\n')
    status, out, err = run("sets", "import", str(file), "--name", "mine")
    assert (status, out) == (2, "")
    assert err == (
        "error: own.jsonl, line 3: there is no key 'grup'; the keys are id, text, messages, group, answer, response. "
        "Nothing was imported.\n"
    )
    assert "mine" not in run("sets", "list")[1]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("show", "nothing"), "There is no prompt set 'nothing'; there are factual-reasoning, idioms, passages."),
        (("remove", "idioms"), "idioms is built in and cannot be removed."),
        (("import", "/nowhere/own.jsonl"), "cannot be read: no such file"),
        (("show", "idioms", "--json", "/nowhere/x.json"), "--json must name a file in a folder that exists"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(
    run: Callable[..., Ran], command: tuple[str, ...], says: str
) -> None:
    status, out, err = run("sets", *command)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_set_and_a_name_that_is_taken(run: Callable[..., Ran], file: Path) -> None:
    assert run("sets", "import", str(file))[0] == 0
    file.write_text(LINES.replace("east", "west"))
    status, _, err = run("sets", "import", str(file))
    assert (status, "with other prompts" in err) == (2, True)
    file.write_bytes(b"\x89PNG\r\n")
    status, _, err = run("sets", "import", str(file), "--name", "picture")
    assert (status, "line 1: byte 1 is no UTF-8 text" in err) == (2, True)
