"""Claims as the app runs them in the background, and as tables and documents. No streamlit."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from app.jobs import Job, Key
from app.services import Services
from app.text import number
from probes.claims.claim import Outcome
from probes.claims.running import Ask, Finding, run_claims
from probes.model.catalog import base_name, installed
from probes.progress import Progress

__all__ = ["claims_document", "claims_job", "claims_key", "claims_markdown", "claims_table", "interval", "other_models"]

_COLUMNS = [
    "name", "claim", "verdict", "effect", "low", "high", "unit", "control", "control_is", "n", "of", "model", "prompts",
    "reason", "paper", "reported", "tested", "rule",
]  # fmt: skip


def claims_key(model: str, prompts: str | None = None, shuffled: bool = False) -> Key:
    """Under which the desk knows the claims that run on a model and a set (None: each claim's own)."""
    return ("claims", model, prompts, shuffled)


def claims_job(held: Services, ask: Ask) -> Job:
    """Test claims in the background; the job in flight on that model and set if there is one. ``job.result`` are findings."""

    def work(progress: Progress) -> list[Finding]:
        return run_claims(held.runner, held.shelf, ask, progress)

    label = "Claims" if len(ask.names) > 1 else f"Claim {ask.names[0]}"
    return held.desk.submit("claims", claims_key(ask.model, ask.prompts, ask.shuffled), f"{label} on {ask.model}", work)


def other_models(model: str) -> tuple[str, ...]:
    """The installed models besides one, which claims about several may use."""
    return tuple(name for name in sorted(installed()) if name != base_name(model))


def claims_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """A row a claim that was tested, with words and numbers; what is missing is None or NaN."""
    return pd.DataFrame([{"claim": one.claim.title} | one.as_document() for one in findings], columns=_COLUMNS)


def claims_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """What the command line writes: ``{"claims": [...]}``."""
    return {"claims": [one.as_document() for one in findings]}


def claims_markdown(findings: Sequence[Finding]) -> str:
    """The table of a document: claim, verdict, effect with its interval, control, n, and why."""
    lines = ["| Claim | Verdict | Effect [95 %] | Control | n | Why |", "|---|---|---|---|---|---|"]
    for one in findings:
        outcome = one.outcome
        control = "" if outcome.control is None else f"{number(outcome.control)} ({outcome.control_is})"
        n = f"{outcome.n} {outcome.of}" if outcome.n else ""
        cells = (f"{one.claim.title} (`{one.claim.name}`)", f"**{outcome.verdict}**", interval(outcome), control, n)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, outcome.reason)) + " |")
    return "\n".join(lines) + "\n"


def interval(outcome: Outcome) -> str:
    """An effect with its interval and unit; "" where there is none."""
    if outcome.effect is None:
        return ""
    ends = "" if None in (outcome.low, outcome.high) else f" [{number(outcome.low or 0)}, {number(outcome.high or 0)}]"
    return f"{number(outcome.effect)}{ends} {outcome.unit}".strip()
