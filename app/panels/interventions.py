"""Panels of interventions: every head taken away in turn."""

from app.figures.effect import head_effects
from app.panels.panel import BLOCK_HEAD, Drawn, Option, panel
from app.view import Gap, View
from probes.request import ProbeCall

__all__ = ["MEASURES", "TO", "heads_call", "heads_drawn"]

MEASURES = {"effect_nll": "loss", "effect_kl": "KL"}
TO = {"zero": "to zero", "mean": "to its mean"}


def heads_call(to: str) -> ProbeCall:
    """The question whose answer holds what each head is worth to the text."""
    return ProbeCall("head_effects", {"to": to})


@panel("interventions-heads", "interventions", "Every head in turn", "Which head does this text need most?",
       ("interventions", "Heads"),
       options={"to": Option(tuple(TO), "interventions-to"), "metric": Option(tuple(MEASURES), "interventions-measure")},
)  # fmt: skip
def heads(view: View, to: str = "zero", metric: str = "effect_nll") -> Drawn:
    call = heads_call(to)
    if view.find(call) is None:
        passes = view.facts.n_layers * view.facts.n_heads
        raise Gap(f"{passes} passes, each from its block on: about {passes // 2} whole passes of this text.")
    largest = "Largest: head {head}, {value:.3f} nats over {n_used} predictions."
    return heads_drawn(view, call, metric, largest)


def heads_drawn(view: View, call: ProbeCall, metric: str, largest: str) -> Drawn:
    """The map of the answer to ``call``; its note is ``largest``, filled in. Raises Gap where nothing is compared."""
    answer = view.answer(call)
    table = answer.table("head_metrics")
    rows = table if table.empty else table[(table["metric"] == metric) & table["value"].notna()]
    if rows.empty:
        raise Gap("This text is too short: there is nothing to compare.")
    top = rows.loc[rows["value"].idxmax()]
    figure = view.figure("head effects", lambda: head_effects(table, metric), answer.info.run_id, metric)
    note = largest.format(head=f"{top['layer']}.{top['head']}", value=top["value"], n_used=top["n_used"])
    return Drawn(figure, note=note, csv=table, place=BLOCK_HEAD)
