"""A document as PDF: its HTML, printed by Chromium. Lines, bars and text are vectors; surfaces are pictures."""

import json
import shutil
import tempfile
from pathlib import Path

from app.report.chromium import PictureError
from app.report.document import Document
from app.report.html import html_report
from app.report.kept import Kept

__all__ = ["PAPERS", "PictureError", "close", "pdf_report"]

PAPERS = ("A4", "Letter")
_WIDTH = {"A4": 680, "Letter": 702}  # pixels (1/96 inch) between the margins of report.css
_A_FIGURE = 0.6  # seconds that drawing and printing one may take, of a report of very many
_KEPT = Kept(within=55.0)  # not the one of the pictures, which would have to wait for a long report


def pdf_report(document: Document, *, paper: str = "A4") -> bytes:
    """The report on paper (one of `PAPERS`), with page numbers and everything that folds stood open.

    Raises PictureError, within 60 s (beyond 90 figures, .6 s each), where Chromium is missing, hangs or fails;
    ValueError for another paper.
    """
    if paper not in PAPERS:
        raise ValueError(f"paper must be one of {', '.join(PAPERS)}, not {paper!r}")
    folder = Path(tempfile.mkdtemp(prefix="eigenscope-"))
    try:
        page = folder / "report.html"
        page.write_text(html_report(document, paper=paper, width=_WIDTH[paper]), encoding="utf-8", newline="")
        figures = sum(entry.fig is not None for entry in document.entries)
        return _KEPT.draw(json.dumps({"page": page.as_uri()}).encode(), _A_FIGURE * figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def close() -> None:
    """End the browser that is kept for the next report, if there is one."""
    _KEPT.close()
