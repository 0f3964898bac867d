"""How a session is handed on: links, a bundle file, reports; and how a bundle comes in."""

import io
import re
from collections.abc import Callable

import streamlit as st

from app.bundles import admit, export
from app.components.keeping import edit_key, local, take
from app.components.progress import show_progress
from app.components.saying import say
from app.methods import section
from app.services import Services
from app.state import link
from app.text import markdown
from cache import StoreError
from cache.bundle_format import BundleRefused, ImportedSession
from cache.bundle_read import read_bundle
from cache.session_rules import Session
from probes.progress import Progress

__all__ = ["bring", "file_name", "hand_on"]

_PATIENCE = 0.3
_PAPERS = ("A4", "Letter")
_KINDS = {"eigenscope": "Bundle", "html": "HTML report", "pdf": "PDF report", "ipynb": "Notebook"}
_MIME = {
    "eigenscope": "application/zip",
    "html": "text/html",
    "pdf": "application/pdf",
    "ipynb": "application/x-ipynb+json",
}
_HELP = {
    "eigenscope": "Everything the session shows, for another machine: python -m app bundle import FILE, or import it there.",
    "html": "One file: interactive figures, no network needed.",
    "pdf": "The HTML printed by Chromium, figures as vectors.",
    "ipynb": "Rebuilds each figure; it needs the bundle of the same name beside it.",
}
_ASKED = "_handed-on"  # session key: what was asked for of which state of a session
_AGAIN = "_hand-on-again"  # session key: whether it was asked for just now, so that what failed before is tried again
_HELD = 3  # files, made before, that the server keeps in memory


def hand_on(held: Services, session: Session, *, editable: bool) -> None:
    """Links and files of a session."""
    with st.expander("Share: links, bundle, reports", key="session-share"):
        reading, writing = st.columns(2)
        with reading:
            st.caption("Whoever has this link reads the session:")
            st.code(link("sessions", {"session": session.share_id}), language=None, wrap_lines=True)
        with writing:
            key = edit_key(held, session.session_id)
            if editable and key is not None:
                st.caption("Whoever has this link changes it; it is told to nobody else:")
                st.code(link("sessions", {"edit": key}), language=None, wrap_lines=True)
            elif editable:
                st.caption(
                    "This browser does not hold the link that changes it; it is changed from the list on this machine."
                )
        with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
            for kind, label in _KINDS.items():
                st.button(label, key=f"make-{kind}", help=_HELP[kind], on_click=_ask, args=(session, kind))
            paper = st.selectbox("Paper", _PAPERS, key="session-paper", label_visibility="collapsed", width=110)
        _file(held, session, paper)
        st.markdown(section("reports", "What is handed on"))


def bring(held: Services, came: Callable[[ImportedSession], None]) -> None:
    """Let a bundle in, checked before anything of it is written; only where the server is its user's own: what it says of a
    run stands in the store from then on."""
    if not local():
        st.caption("Bundles are imported on one's own machine, or by the command line of this server.")
        return

    def took() -> None:
        file = st.session_state["bundle-in"]
        if file is None:
            return
        try:
            made = admit(held.store, read_bundle(file))
        except (BundleRefused, StoreError, OSError) as problem:
            st.session_state["_bundle-refused"] = str(problem)
            return
        held.memo.clear()  # the bundle may have brought texts of token ids that were shown as numbers
        st.session_state.pop("_bundle-refused", None)
        take(held, made.session.session_id, made.edit_key)
        came(made)
        title = markdown(made.session.title)
        say(f"“{title}” is already here, unchanged." if made.edit_key is None else f"Imported “{title}”.")

    st.file_uploader("Import a bundle", type=["eigenscope"], key="bundle-in", on_change=took, max_upload_size=256)
    refused = st.session_state.get("_bundle-refused")
    if refused:
        st.error(markdown(refused))


def file_name(session: Session, kind: str) -> str:
    """What a file of a session is called."""
    stem = re.sub(r"[^\w-]+", "-", session.title, flags=re.ASCII).strip("-")[:48] or "session"
    return f"{stem}-{session.session_id[:8]}.{kind}"


def _ask(session: Session, kind: str) -> None:
    st.session_state[_ASKED], st.session_state[_AGAIN] = (session.session_id, kind), True


def _file(held: Services, session: Session, paper: str) -> None:
    """The file that was asked for: its progress, then a button that saves it."""
    asked: tuple[str, str] | None = st.session_state.get(_ASKED)
    if asked is None or asked[0] != session.session_id:
        return
    kind = asked[1]
    key = ("hand on", session.session_id, str(session.updated), kind, paper)
    job, again = held.desk.get(key), st.session_state.pop(_AGAIN, False)
    content = None if job is None else job.result
    if job is None or (job.state == "done" and content is None) or (again and job.error is not None):
        for old in held.desk.done("hand on")[:-_HELD]:
            old.result = None

        def work(progress: Progress) -> bytes:
            progress.step(0.1, "drawing")
            return _made(held, session, kind, paper, progress)

        job = held.desk.submit("sessions", key, _KINDS[kind], work)
    if not job.wait(_PATIENCE):
        show_progress(job)
    elif job.error is not None:
        st.warning(markdown(job.error))
    elif (content := content or job.result) is not None:
        name = file_name(session, kind)
        st.download_button(
            f"Save {name} ({len(content) / 1e6:.1f} MB)", content, name, _MIME[kind], key=f"save-{kind}",
            on_click="ignore", type="primary",
        )  # fmt: skip


def _made(held: Services, session: Session, kind: str, paper: str, progress: Progress) -> bytes:
    """Write a file of a session. The report modules are loaded here: pages that hand nothing on need none of them."""
    from app.report.document import make_document
    from app.report.html import html_report
    from app.report.notebook import notebook
    from app.report.pdf import pdf_report

    if kind == "eigenscope":
        out = io.BytesIO()
        export(held, session.session_id, out)
        return out.getvalue()
    document = make_document(session.title, session.notes, held.store.session_items(session.session_id), held)
    progress.step(0.5, "writing")
    if kind == "html":
        return html_report(document).encode()
    if kind == "pdf":
        return pdf_report(document, paper=paper)
    return notebook(document, file_name(session, "eigenscope")).encode()
