"""A table of latents, each one click from its page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app.components.sae_choice import prefer
from app.components.shell import page_of
from app.state import select
from app.text import printable

__all__ = ["latent_table"]

_HEIGHT = 320


def latent_table(rows: pd.DataFrame, key: str, sae_of: Mapping[str, str], **columns: Any) -> None:
    """Draw a table; a click on a cell opens the page of the latent named at its left, or of the first.

    ``sae_of``: the columns that hold numbers of latents -> the SAE they are of; ``columns`` are column settings. A column
    of labels of which there are none is left out.
    """
    text = rows.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in rows.dtypes]]
    shown = rows.assign(**{name: rows[name].map(lambda cell: printable(str(cell))) for name in text})
    shown = shown.drop(columns=[name for name in text if (shown[name] == "").all()])
    numbers = {name: st.column_config.NumberColumn(format="%d") for name in sae_of}
    state = st.dataframe(
        shown, hide_index=True, key=key, on_select="rerun", selection_mode="single-cell", column_config={**numbers, **columns},
        height="content" if len(rows) < 8 else _HEIGHT,
    )  # fmt: skip
    cells = state.selection.cells
    if not cells:
        return
    row, clicked = cells[0]
    names = list(rows.columns)
    before = [name for name in names[: names.index(clicked) + 1] if name in sae_of]
    column = before[-1] if before else next(iter(sae_of))
    prefer(sae_of[column])
    select(latent=int(rows[column].iloc[row]))
    st.switch_page(page_of("latent"))
