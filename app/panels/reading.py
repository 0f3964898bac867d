"""Small things that panels and pages ask of a view: its block and head in sight."""

from app.view import View

__all__ = ["block_of", "head_of"]


def block_of(view: View) -> int:
    """The block whose output the selected point is; block 0 for the embeddings."""
    return max(view.selection.point - 1, 0)


def head_of(view: View) -> tuple[int, str]:
    """The selected head, or the one of the block that looks most at position 0, and a word on why it is this one."""
    if view.selection.head is not None:
        return view.selection.head, ""
    scores = view.metric("head_metrics", "sink_score")
    here = scores[scores["layer"] == block_of(view)].set_index("head")["value"].dropna()
    return (0, "") if here.empty else (int(here.idxmax()), ", largest sink score")
