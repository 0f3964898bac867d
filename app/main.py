"""The web app: puts the repository on the path and names its pages."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app.components.shell import dress, page_of, pages, remember_root  # noqa: E402

st.set_page_config(page_title="Eigenscope", layout="wide")
dress()
page = st.navigation(pages(), position="top")
remember_root(page)
if page.url_path != "sessions" and not {"session", "edit"}.isdisjoint(st.query_params):
    st.switch_page(page_of("sessions"), query_params=dict(st.query_params))
page.run()
