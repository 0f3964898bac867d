"""Fault 24: what looks like SQL is data everywhere, and no SQL text is put together from variables."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from cache import RunAbsent, Store, TensorAbsent
from tests.cache.rows import capture, run

REPO = Path(__file__).parents[2]
CORPUS = (
    "'; DROP TABLE runs; --",
    "' OR '1'='1",
    "'' OR 1=1",
    '"; DROP TABLE runs; --',
    "x' UNION SELECT value FROM meta --",
    "$$; DELETE FROM tensors; $$",
    "?",
    "$1",
    ":name",
    "%s %(x)s {x} {0}",
    "\\'; SELECT 1",
    "a\0b'; DROP TABLE chunks",
    "/* */ ; ATTACH 'x.duckdb' --",
    "COPY runs TO 'out.csv'",
    "read_csv('/etc/passwd')",
    "main.runs",
    "runs\n; CHECKPOINT",
    "’; DROP TABLE runs; ﹣﹣",
    "NULL",
    "",
)
RUNNERS = {"execute", "executemany", "sql", "query", "from_query"}
STATEMENT = re.compile(
    r"^\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|CREATE\s+(TABLE|SEQUENCE)|DROP\s+TABLE|ATTACH|COPY)\b",
    re.IGNORECASE | re.DOTALL,
)


def test_hostile_strings_come_back_literally_and_run_nothing() -> None:
    with Store.open(":memory:") as store:
        for text in CORPUS:
            tables = {
                "tokens": pd.DataFrame({"pos": [0], "token_id": [1], "text": [text]}),
                "layer_metrics": pd.DataFrame(
                    {"layer": [0], "metric": [text], "value": [1.0], "n_used": [1], "status": [text]}
                ),
            }
            values = {(text, text): torch.ones(2)}
            store.write_run({**run(text, text), "model": text, "notes": [text]}, tables, values, capture(text))
        for text in CORPUS:
            stored = store.run(text)
            assert stored is not None
            assert (stored["run_id"], stored["model"], stored["notes"]) == (text, text, [text])
            assert store.table(text, "tokens")["text"].tolist() == [text]
            assert store.table(text, "layer_metrics")["metric"].tolist() == [text]
            assert torch.equal(store.tensor(text, text), torch.ones(2))
            assert not store.has_weight_spectra(text, 0, text)
        assert store.info()["runs"] == len(CORPUS)
        assert store.verify() == ()


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_names_of_what_is_not_there_are_only_absent(text: str) -> None:
    with Store.open(":memory:") as store:
        store.write_run(run(), {}, {("c0", "x"): torch.ones(1)}, capture())
        assert store.run(text) is None
        with pytest.raises(RunAbsent):
            store.table(text, "tokens")
        with pytest.raises(ValueError, match="no table"):
            store.table("r0", text)
        with pytest.raises(ValueError, match="no table"):
            store.write_run(run("r1"), {text: pd.DataFrame()}, {})
        with pytest.raises(TensorAbsent):
            store.tensor(text, "x")
        assert store.info()["runs"] == 1


def composed(tree: ast.AST) -> Iterator[ast.AST]:
    """SQL that is put together: passed to something that runs it, or looking like a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            name, first = node.func.attr, node.args[0]
            if name in RUNNERS and not isinstance(first, ast.Constant | ast.Name | ast.Attribute):
                yield node
            if name == "format" and isinstance(node.func.value, ast.Constant) and looks_like_sql(node.func.value.value):
                yield node
        if isinstance(node, ast.JoinedStr) and looks_like_sql(
            "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        ):
            yield node
        if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and looks_like_sql(node.left.value):
            yield node


def looks_like_sql(text: object) -> bool:
    return isinstance(text, str) and STATEMENT.match(text) is not None


@pytest.mark.parametrize("package", ["cache", "probes", "app", "analysis"])
def test_no_sql_is_composed(package: str) -> None:
    files = sorted((REPO / package).rglob("*.py"))
    assert files
    found = [
        f"{file.name}:{node.lineno}" for file in files for node in composed(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "c.execute(f'SELECT {x}')",
        "c.execute('SELECT a FROM t WHERE b = ' + x)",
        "c.execute('SELECT %s' % x)",
        "c.execute('SELECT {}'.format(x))",
        "sql = f'SELECT a FROM {t}'",
        "sql = 'DELETE FROM ' + t",
        "sql = 'INSERT INTO {} VALUES (1)'.format(t)",
        "c.sql(' '.join(parts))",
    ],
)
def test_composed_sql_would_be_found(code: str) -> None:
    assert list(composed(ast.parse(code)))
