"""The command line in one process: documents, exit statuses, one sentence on stderr."""

import json
import math
import sys
from pathlib import Path

import pytest

from app.cli import main
from tests import tiny, tiny_saes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")


class Ran:
    """What a command left behind."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def document(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def run(empty_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["app", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return call


def one_sentence(ran: Ran) -> str:
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return ran.err


def test_run_writes_the_document_and_a_second_time_takes_no_pass(run, folder: Path) -> None:
    command = (
        "run",
        "--model",
        str(folder),
        "--text",
        tiny.TEXT,
        "--probes",
        "tokens,sinks,massive,events",
        "--json",
        "-",
    )
    first, again = run(*command), run(*command)
    assert first.status == again.status == 0
    entry = first.document["run"]
    assert (entry["cached"], entry["forward_passes"], entry["n_tokens"]) == (False, 1, len(tiny.TEXT) + 1)
    assert (again.document["run"]["cached"], again.document["run"]["forward_passes"]) == (True, 0)
    assert again.document["head_metrics"] == first.document["head_metrics"]
    keys = "run_id capture_id model fingerprint weights device dtype mask n_tokens cached forward_passes seconds"
    assert {*keys.split(), "peak_bytes", "versions", "session_id"} <= set(entry)
    nll = [row for row in first.document["token_metrics"] if row["metric"] == "nll"]
    assert nll[0]["value"] is None
    assert nll[0]["layer"] is None
    assert nll[0]["status"] == "not_applicable"
    assert all(isinstance(row["layer"], int) for row in first.document["head_metrics"])
    masked = run(*command, "--mask", "no_bos")
    assert (masked.document["run"]["cached"], masked.document["run"]["forward_passes"]) == (False, 0)


def test_a_file_is_written_whole_and_memory_stores_leave_nothing(
    run, folder: Path, tmp_path: Path, empty_home: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    out = tmp_path / "out.json"
    ran = run(
        "run",
        "--model",
        str(folder),
        "--text-file",
        str(text),
        "--probes",
        "tokens",
        "--store",
        ":memory:",
        "--json",
        str(out),
    )
    assert (ran.status, ran.out) == (0, "")
    assert json.loads(out.read_text())["run"]["n_tokens"] == len(tiny.TEXT) + 1
    assert list(tmp_path.glob(".*")) == []
    assert not (empty_home / "store.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--text", "  "), "empty"),
        (("--text", "a" * 400), "takes at most 256"),
        (("--text", "a", "--text-file", "b"), "exactly one"),
        (("--text-file", "/nonexistent/file"), "cannot be read"),
        (("--text", "abcdef", "--chat"), "no chat template"),
        (("--text", "abcdef", "--mask", "some"), "all, no_bos, no_sink"),
        (("--text", "abcdef", "--dtype", "int8"), "float32, float16, bfloat16"),
        (("--text", "abcdef", "--device", "tpu"), "auto, cpu or cuda"),
        (("--text", "abcdef", "--points", "0,99"), "0..3"),
        (("--text", "abcdef", "--points", "-1"), "whole numbers"),
        (("--text", "abcdef", "--positions", "0-99"), "lens.positions must lie in 0..6"),
        (("--text", "abcdef", "--positions", "half"), "all, sample, last"),
        (("--text", "abcdef", "--set", "lens.top_k=NaN"), "top_k"),
        (("--text", "abcdef", "--set", "lens.nope=1"), "no parameter 'nope'"),
        (("--text", "abcdef", "--set", "tokens.x=1"), "not among the probes"),
        (("--text", "abcdef", "--set", "nonsense"), "probe.parameter=value"),
        (("--text", "abcdef", "--json", "/nonexistent/out.json"), "folder that exists"),
        (("--text", "abcdef", "--nope"), "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(run, folder: Path, arguments: tuple[str, ...], says: str) -> None:
    ran = run("run", "--model", str(folder), "--probes", "lens", "--json", "-", "--store", ":memory:", *arguments)
    assert ran.status == 2
    assert says in one_sentence(ran)


def test_unknown_probe_and_unknown_model_name_the_known_ones(run, folder: Path) -> None:
    ran = run("run", "--model", str(folder), "--text", "abc", "--probes", "nope", "--json", "-")
    assert ran.status == 2
    assert "spectral" in one_sentence(ran)
    for name in ("nope", "../x", "./nowhere", "a/b/c", "<script>"):
        ran = run("run", "--model", name, "--text", "abc", "--probes", "tokens", "--json", "-")
        assert ran.status == 2, name
        assert "model" in one_sentence(ran)


def test_messages_need_valid_json_of_roles_and_contents(run, folder: Path, tmp_path: Path) -> None:
    for text in ("{", "[]", '[{"role": "user"}]', '[{"role": "king", "content": "a"}]', "[" * 100_000):
        path = tmp_path / "messages.json"
        path.write_text(text)
        ran = run("run", "--model", str(folder), "--messages", str(path), "--probes", "tokens", "--json", "-")
        assert ran.status == 2
        assert "essage" in one_sentence(ran)


def test_a_plan_that_does_not_fit_is_status_3(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    ran = run("run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-")
    assert ran.status == 3
    assert "EIGENSCOPE_MEMORY_LIMIT" in one_sentence(ran)


def test_a_damaged_store_is_status_4_and_untouched(run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    path.write_text("this is no store")
    ran = run(
        "run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-", "--store", str(path)
    )
    assert ran.status == 4
    assert str(path) in one_sentence(ran)
    assert path.read_text() == "this is no store"


def test_models_that_cannot_be_trusted_are_refused_with_status_1(run, folder: Path, tmp_path: Path) -> None:
    for name, weights in (("bloom", {}), ("llama", {"weights": False})):
        bad = tmp_path / name
        tiny.save(bad, name)
        if weights:
            (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
        ran = run("models", "check", str(bad))
        assert ran.status == 1
        assert "attention" in ran.err or "safetensors" in ran.err
        one_sentence(ran)


def test_a_healthy_model_lists_every_check(run, folder: Path) -> None:
    ran = run("models", "check", str(folder))
    assert ran.status == 0
    for check in ("finite weights", "attention function", "logits", "residual points", "components", "bridge"):
        assert f"ok\t{check}" in ran.out


def test_cache_commands(run, folder: Path) -> None:
    run("run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-")
    assert "runs\t1" in run("cache", "info").out
    assert "whole" in run("cache", "verify").out
    assert run("cache", "prune", "--max-bytes", "0").status == 0
    assert "tensors\t0" in run("cache", "info").out
    assert run("cache", "prune", "--max-bytes", "-1").status == 2


EDIT = {"site": "resid", "layer": 1, "positions": [0], "op": "set", "source": "zero"}


def test_an_edit_changes_the_loss_and_stands_in_the_document(run, folder: Path) -> None:
    command = ("run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-")
    clean, edited = run(*command).document, run(*command, "--edit", json.dumps(EDIT)).document
    assert clean["run"]["request"]["edits"] == []
    assert edited["run"]["request"]["edits"] == [EDIT]
    assert edited["run"]["capture_id"] != clean["run"]["capture_id"]
    against = ("--probes", "effect", "--set", f"effect.against={clean['run']['run_id']}")
    effect = run(*command, "--edit", json.dumps(EDIT), *against).document
    found = {row["metric"]: row["value"] for row in effect["layer_metrics"] if row["layer"] is None}
    for document, metric in ((clean, "perplexity_clean"), (edited, "perplexity")):
        losses = [row["value"] for row in document["token_metrics"] if row["metric"] == "nll"][1:]
        assert math.exp(sum(losses) / len(losses)) == pytest.approx(found[metric], rel=1e-6)
    assert found["perplexity"] != pytest.approx(found["perplexity_clean"], rel=1e-3)


def test_a_concept_prompt_is_an_edit_like_any_other(run, folder: Path, empty_home: Path) -> None:
    tiny_saes.make(empty_home / "saes" / "one")
    command = ("run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-")
    edit = {"site": "resid", "layer": 2, "op": "add", "source": {"concept": ["one", "the doctor"], "add": 3}}
    made = run(*command, "--edit", json.dumps(edit)).document["run"]
    [settled] = made["request"]["edits"]
    source = settled["source"]
    assert (source["concept"], source["add"]) == (["one", "the doctor"], 3)
    assert len(source["latents"]) == len(source["values"]) == 32
    again = run(*command, "--edit", json.dumps(settled)).document["run"]
    assert (again["run_id"], again["forward_passes"]) == (made["run_id"], 0)
    for text, says in (("", "at least one visible character"), ("x" * 501, "at most 500 characters")):
        refused = run(*command, "--edit", json.dumps({**edit, "source": {"concept": ["one", text], "add": 3}}))
        assert refused.status == 2
        assert says in one_sentence(refused)


def test_edits_add_up_whether_given_apart_or_as_a_list(run, folder: Path) -> None:
    command = ("run", "--model", str(folder), "--text", tiny.TEXT, "--probes", "tokens", "--json", "-")
    mask = {"site": "pattern", "layer": 0, "op": "mask", "keys": [2]}
    apart = run(*command, "--edit", json.dumps(EDIT), "--edit", json.dumps(mask)).document
    assert apart["run"]["request"]["edits"] == [EDIT, {**mask, "renormalise": True}]
    whole = run(*command, "--edit", json.dumps([EDIT, mask])).document
    assert (whole["run"]["run_id"], whole["run"]["cached"]) == (apart["run"]["run_id"], True)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ("{", "An edit is JSON such as"),
        ("", "An edit is JSON such as"),
        ("[]", "list of edits is empty"),
        ({**EDIT, "positions": []}, "positions is empty"),
        ({**EDIT, "layer": 4}, "a point from 0 to 3 here, not 4"),
        ({**EDIT, "site": "mlp_out", "layer": 3}, "a block from 0 to 2 here, not 3"),
        ({**EDIT, "positions": [6]}, "positions of resid lie in 0..5 here, not 6"),
        ({**EDIT, "dims": [32]}, "dims of resid lie in 0..31 here, not 32"),
        ({**EDIT, "site": "head_z", "heads": [4]}, "heads of head_z lie in 0..3 here, not 4"),
        ({**EDIT, "source": {"mean": "nobody"}}, "there is no bank 'nobody'"),
        ({**EDIT, "source": {"run": "nothing"}}, "holds no run 'nothing'"),
        ({**EDIT, "source": 1e39}, "within float32"),
        ({**EDIT, "site": "resid_mid"}, "site must be one of resid, attn_out"),
    ],
)
def test_an_edit_that_cannot_be_is_status_2_and_nothing_is_written(
    run, folder: Path, tmp_path: Path, edit: object, says: str
) -> None:
    out = tmp_path / "out.json"
    given = edit if isinstance(edit, str) else json.dumps(edit)
    command = ("run", "--model", str(folder), "--text", "short", "--probes", "tokens", "--json", str(out))
    ran = run(*command, "--edit", given)
    assert ran.status == 2
    assert says in one_sentence(ran)
    assert not out.exists()
    assert list(tmp_path.glob(".*")) == []
    assert "runs\t0" in run("cache", "info").out
