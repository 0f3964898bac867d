"""Where things live on disk: one home folder, chosen by the environment."""

import os
from pathlib import Path

__all__ = ["home", "store_path"]


def home() -> Path:
    """``EIGENSCOPE_HOME``, by default ``~/.local/share/eigenscope``; not created here."""
    return Path(os.environ.get("EIGENSCOPE_HOME") or "~/.local/share/eigenscope").expanduser()


def store_path() -> Path:
    """The store that is used unless another is named."""
    return home() / "store.duckdb"
