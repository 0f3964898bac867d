"""Response: what the model writes after a prompt, and how its states differ there from those of the prompt."""

import streamlit as st

from app.components.backend import services
from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.run_form import JOB, generation_fields
from app.components.two_prompts import prose
from app.panels.token_spectra import windows_call
from app.text import markdown
from probes.respond import response_start
from probes.token_spectra import WINDOW, WINDOWS

__all__ = ["page"]

_SHOWN = 400  # tokens of a response that are shown as text


def page() -> None:
    """Draw the page."""
    explore("Response", "What changes in the states where the model begins to write?", panels)


def panels(view: View) -> None:
    """What was written, the shift of every point, and alpha along the text; or the form that lets the model write."""
    start = response_start(view.info.request)
    if start is None:
        st.caption("This text was given whole. Let the model go on from its end: prompt and response become one run.")
        _form(view, "Let it write")
        return
    _text(view, start)
    show(view, "response-shift")
    window = min(st.session_state.get("windows-w", WINDOW), len(view.tokens))
    if window >= WINDOWS[0]:
        call = windows_call(window, "normed")
        if extra(view, call, label=f"Compute alpha of every window of {window} tokens", auto=view.loaded) is not None:
            show(view, "response-growth", window=window)
    with st.expander("Another response to the same prompt"):
        _form(view, "Write another")


def _form(view: View, label: str) -> None:
    with st.form("response-form", border=False):
        how = generation_fields("response", 64)
        if st.form_submit_button(label, type="primary") and how is not None:
            st.session_state[JOB] = services().respond(view.info.request, how).key
            st.rerun()


def _text(view: View, start: int) -> None:
    alone = view.table("layer_metrics")
    alone = alone[alone["layer"].isna()].set_index("metric")["value"]
    written = view.tokens[start:]
    said = [f"{len(written)} tokens from position {start}"]
    if "response_logprob@all" in alone:
        said += [
            f"ln p {alone['response_logprob@all']:.2f}",
            f"entropy {alone['response_entropy@all']:.2f} nats a token",
        ]
    answer = int(alone.get("response_answer", len(view.tokens)))
    if answer < len(view.tokens):
        said.append(f"the answer begins at {answer}")
    st.caption(" · ".join(said))
    more = "" if len(written) <= _SHOWN else " …"
    st.markdown(markdown("".join(prose(piece) for piece in written[:_SHOWN]) + more))
