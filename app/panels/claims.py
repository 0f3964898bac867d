"""The panel of claims: what was found on the model of the run."""

from app.claims import claims_table, interval
from app.figures.claims import effect_rows
from app.panels.panel import Drawn, Option, panel
from app.text import markdown
from app.view import Gap, View
from probes.claims.running import kept_findings

__all__ = ["effects"]


@panel("claims-effects", "claims", "Effects of the claims", "How large is each effect beside its control?",
       ("claims", "Reading an outcome"), options={"prompts": Option(str, "claims-set")})  # fmt: skip
def effects(view: View, prompts: str = "") -> Drawn:
    findings = list(kept_findings(view.services.store, view.facts, prompts or None).values())
    if not findings:
        raise Gap(f"No claim was tested on {markdown(view.facts.name)} yet.")
    words = "  \n".join(
        f"{markdown(one.claim.title)}: **{one.outcome.verdict}**"
        + (f", {markdown(interval(one.outcome))}" if one.outcome.effect is not None else "")
        + f". {markdown(one.outcome.reason)}"
        for one in findings
    )
    told = [one for one in findings if one.outcome.effect is not None]
    figure = effect_rows(told) if told else None
    note = None if told else "None of the claims that were tested has an effect to draw."
    return Drawn(figure, note=note, csv=claims_table(findings), aside=words)
