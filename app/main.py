"""The web app: puts the repository on the path and names its pages."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app.components.shell import dress, pages  # noqa: E402

st.set_page_config(page_title="Eigenscope", layout="wide")
dress()
st.navigation(pages(), position="top").run()
