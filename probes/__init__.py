"""What touches a model: loading, capture, and one file for each probe."""

from typing import Any

__all__ = ["explore"]


def __getattr__(name: str) -> Any:
    """``from probes import explore``, without loading torch for everybody who imports a part of this package."""
    if name == "explore":
        from probes.in_memory import explore

        return explore
    raise AttributeError(f"module 'probes' has no attribute {name!r}")
