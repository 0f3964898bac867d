"""Panels of two SAEs compared on one text, and of absorption in one: each of the newest stored answer, or of the SAEs named."""

import numpy as np
import pandas as pd

from analysis.absorption import MIN_F1
from analysis.universality import PAIRS_PER_DIMENSION
from app.figures.sae_compare import children_bars, geometry_dots, letter_bars, match_histogram
from app.panels.panel import Drawn, Option, panel
from app.sae_compare import Answer, absorbed, compared
from app.sae_index import labels_of
from app.text import markdown
from app.view import Gap, View

__all__ = ["ONE", "A", "B", "child_table", "scores"]

A, B, ONE = "saes-a", "saes-b", "saes-absorption"
_PAIR = {"sae": Option(str, A), "other": Option(str, B)}
_SCORES = {"svcca": "SVCCA", "rsa": "RSA"}
_FEW = 10  # pairs that RSA needs (analysis.universality.rsa)


@panel("saes-matches", "sae_compare", "How well latents match", "Does A have a latent that fires as one of B does?",
       ("saes", "Universality"), options=_PAIR)  # fmt: skip
def matches(view: View, sae: str = "", other: str = "") -> Drawn:
    found = _compared(view, sae, other)
    a, b = found.saes
    table = found.table("matches")
    if table.empty:
        raise Gap("No latent of B ever changed on this text, so none can be matched.")
    figure = match_histogram(table["r"].to_numpy(dtype=float), table["kept"].to_numpy(dtype=bool))
    note = (
        f"A is {markdown(a.name)}, B {markdown(b.name)}. {len(table):,} of {b.d_sae:,} latents of B changed on "
        f"{found.document['compare']['n_tokens']:,} tokens and have a best match; not compared: r of .1 or less, "
        "punctuation, or no token in common."
    )
    return Drawn(figure, note=note, csv=table)


@panel("saes-geometry", "sae_compare", "Whether matches write alike", "More alike than matches drawn at random?",
       ("saes", "Universality"), options=_PAIR)  # fmt: skip
def geometry(view: View, sae: str = "", other: str = "") -> Drawn:
    found = _compared(view, sae, other)
    table, refused = scores(found), " ".join(_refusals(found))
    if table["value"].isna().all():
        raise Gap(refused)
    defined = table[table["value"].notna()]
    told = [f"{row.score} p = {row.p:.2g}" for row in defined.itertuples()]
    note = (
        f"{found.document['compare']['n_pairs']:,} pairs of decoder rows, 100 shufflings: {', '.join(told)}. {refused}"
    )
    return Drawn(geometry_dots(table), note=note.rstrip(), csv=table)


@panel("saes-splitting", "sae_compare", "Latents that split", "Into how many does a latent fall apart in the wider SAE?",
       ("saes", "Splitting"), options=_PAIR)  # fmt: skip
def splitting(view: View, sae: str = "", other: str = "") -> Drawn:
    found = _compared(view, sae, other)
    narrow, wide = found.by_width
    table = child_table(view, found)
    if table.empty:
        raise Gap(
            f"No latent of {markdown(narrow.name)} has children in {markdown(wide.name)}: none writes with a cosine "
            "above .7 what it writes and fires with it."
        )
    with_children = table["latent"].nunique()
    several = int((table.groupby("latent").size() > 1).sum())
    note = (
        f"{with_children:,} of {narrow.d_sae:,} latents of {markdown(narrow.name)} have children in {markdown(wide.name)}, "
        f"{several:,} of them several."
    )
    if narrow.d_sae == wide.d_sae:
        note += " Both are equally wide: this is agreement, not splitting."
    return Drawn(children_bars(table), note=note, csv=table)


@panel("saes-absorption", "sae_compare", "Letters", "Can the first letter of a word be read, and do latents of words swallow it?",
       ("saes", "Absorption"), options={"sae": Option(str, ONE)})  # fmt: skip
def absorption(view: View, sae: str = "") -> Drawn:
    found = absorbed(view.services, view.facts, sae)
    if found is None:
        raise Gap("Absorption was not measured yet.")
    f1 = found.document["probe_f1"]
    rates = found.table("letters").set_index("letter")["rate"].astype(float)
    table = pd.DataFrame({"letter": list(f1), "probe_f1": list(f1.values())})
    table["rate"] = table["letter"].map(rates).astype(float)
    says = markdown(found.document["absorption"]["says"])
    return Drawn(letter_bars(table, MIN_F1), note="The dotted line is the mean F1 from which on rates are measured.", csv=table,
                 aside=says)  # fmt: skip


def scores(found: Answer) -> pd.DataFrame:
    """SVCCA and RSA of a comparison: ``score, value, shuffled, p``, NaN where there is none."""
    told = found.document["compare"]
    columns = {"value": "", "shuffled": "_null", "p": "_p"}
    values = {column: [told[f"{name}{suffix}"]["value"] for name in _SCORES] for column, suffix in columns.items()}
    return pd.DataFrame({"score": list(_SCORES.values()), **values}).replace({None: np.nan})


def _refusals(found: Answer) -> list[str]:
    """A sentence for each score of a comparison that is not given."""
    told = found.document["compare"]
    pairs, kept = told["n_pairs"], told["n_directions"]
    said = []
    if told["svcca"]["value"] is None:
        needed = PAIRS_PER_DIMENSION * kept
        why = (
            f"{pairs:,} pairs are fewer than {PAIRS_PER_DIMENSION} times the {kept:,} directions that hold 99 % of their "
            f"variance ({needed:,}), and with so few it is near 1 whatever the rows are."
        )
        said.append(f"SVCCA is not given: {why if kept else f'{pairs} pairs do not vary.'}")
    if told["rsa"]["value"] is None:
        why = f"it needs at least {_FEW} pairs, not {pairs}" if pairs < _FEW else "the distances do not vary"
        said.append(f"RSA is not given: {why}.")
    return said


def child_table(view: View, found: Answer) -> pd.DataFrame:
    """Children of the narrower SAE's latents with the labels of both, "" where there is none."""
    narrow, wide = found.by_width
    table = found.table("children")
    for place, (column, sae) in enumerate((("latent", narrow), ("child", wide))):
        labels = labels_of(view, sae.name)
        named = [labels.get(int(latent), "") for latent in table[column]]
        table.insert(2 * place + 1, f"label of {column}", named)
    return table


def _compared(view: View, sae: str, other: str) -> Answer:
    found = compared(view.services, view.facts, sae, other)
    if found is None:
        raise Gap("These SAEs were not compared yet." if sae else "No two SAEs of this model were compared yet.")
    return found
