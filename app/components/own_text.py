"""A text of a person's own, for what would otherwise be measured on the texts that come with the app."""

import streamlit as st

from probes.saes.sequences import FileText

__all__ = ["own_text"]

_LARGEST = 4 << 20


def own_text(title: str, label: str, key: str) -> FileText | None:
    """The file that was given, or None; what is too large or no text is told."""
    with st.expander(title):
        given = st.file_uploader(label, type=["txt", "md"], key=key)
        if given is None:
            return None
        if given.size > _LARGEST:
            st.warning(f"The file is larger than {_LARGEST >> 20} MB.")
            return None
        try:
            return FileText("file", given.name, given.getvalue().decode("utf-8"))
        except UnicodeDecodeError:
            st.warning("The file is not UTF-8 text.")
            return None
