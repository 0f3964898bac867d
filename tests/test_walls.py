"""The arrows between the packages run one way (import-linter contracts of pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]


def test_no_import_crosses_a_wall() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
