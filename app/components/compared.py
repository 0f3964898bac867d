"""One view of two runs: A beside B, and B − A below, under the one selection."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.comparable import Comparable
from app.components.panel import show
from app.view import View

__all__ = ["compared"]


def compared(a: View, shown: Comparable, pair: Mapping[str, Any], *, shared: bool) -> None:
    """Draw the three panels of a view; ``pair`` are the options that name B and how it is aligned.

    ``shared`` puts A and B on the same axes and colours.
    """
    st.markdown(f"**{shown.title}** :small[:gray[{shown.question}]]")
    columns = (st.container(), st.container()) if shown.wide else st.columns(2)
    for column, name in zip(columns, "ab", strict=True):
        with column:
            show(a, f"compare-{shown.key}-{name}", title=name.upper(), **pair, shared=shared)
    show(a, f"compare-{shown.key}-d", title="B − A", **pair)
