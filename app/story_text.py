"""The sentences of the story, made of numbers of the store; the page and the article of docs/ tell the same."""

import pandas as pd

from app.story import Birth, Plan
from app.text import markdown, number, visible
from probes.runner import RunResult

__all__ = ["born", "damaged", "position_not_token", "sinks_begin", "written"]


def born(result: RunResult, birth: Birth, tokens: tuple[str, ...]) -> str:
    """How many numbers there are, and the one."""
    facts, n = result.facts, len(tokens)
    count = (facts.n_layers + 1) * n * facts.d_model
    gone = "to the end" if birth.death is None else f"until point {birth.death}"
    return (
        f"Reading {n} tokens, the residual stream holds {facts.n_layers + 1} points × {n} tokens × {facts.d_model} dimensions "
        f"= **{count:,} numbers**. One of them, at position {birth.position} {markdown(visible(tokens[birth.position]))}, "
        f"dimension {birth.dim}, becomes **{number(birth.value)}** at point {birth.birth} and stays {gone}; the median "
        f"there is {birth.median:.2f}, a ratio of {number(abs(birth.value) / birth.median)}."
    )


def written(birth: Birth) -> str:
    """Attention or MLP, and the fewest neurons that do it."""
    writers = birth.writers()
    named = " and ".join(
        f"{int(n)} ({number(c)})" for n, c in zip(writers["neuron"], writers["contribution"], strict=True)
    )
    share = float(writers["contribution"].sum()) / birth.mlp if birth.mlp else float("nan")
    return (
        f"Block {birth.block} writes it in one step: attention adds {number(birth.attn)}, the MLP {number(birth.mlp)}. "
        f"{len(writers)} of its neurons write {share:.1%} of that: {named}."
    )


def sinks_begin(result: RunResult, birth: Birth) -> str:
    """Where the sinks begin, against where the entry is born."""
    layers = result.table("layer_metrics")
    share = layers[layers["metric"] == "sink_share"].dropna(subset=["value"]).sort_values("layer")
    on = share[share["value"] > 0]
    if on.empty:
        return "No head of this run has its sink at position 0."
    first, top = on.iloc[0], share.loc[share["value"].idxmax()]
    start = int(first["layer"]) - 1
    after = start - birth.block
    steps = "the very block that writes it" if after == 0 else "the very next block" if after == 1 else _blocks(after)
    return (
        f"The first heads to rest on position 0 are in block {start}, {steps}: {first['value']:.0%} of its heads give it more "
        f"than .3 of their attention; most in block {int(top['layer']) - 1}, {top['value']:.0%}."
    )


def _blocks(after: int) -> str:
    return f"{abs(after)} block{'s' * (abs(after) > 1)} {'after' if after > 0 else 'before'} the one that writes it"


def damaged(table: pd.DataFrame, plan: Plan) -> str:
    """What setting it to zero costs at each point, what its mean costs, and what the controls cost."""
    clean = float(table.loc[table["role"] == "clean", "perplexity"].iloc[0])
    targets = table[table["role"] == "target"].set_index("changed")["perplexity"]
    zero = {p: float(targets[f"point {p}: entry to zero"]) for p in plan.points}
    mean = {p: float(targets[f"point {p}: entry to its mean"]) for p in plan.points}
    controls = table.loc[table["role"] == "control", "perplexity"].astype(float)
    nudged = table.loc[table["role"] == "variant", "perplexity"].astype(float)
    steps = ", ".join(f"{number(value)} at point {p}" for p, value in zero.items())
    flat = " to ".join(dict.fromkeys((number(min(mean.values())), number(max(mean.values())))))
    said = (
        f"Set to zero, this one number takes the perplexity of the text from {number(clean)} to **{steps}**. Set to its mean "
        f"over other texts it leaves it at {flat}"
    )
    if plan.birth.position == 0:
        said += (
            " (position 0 sees nothing but the first token: after the same one it holds the same number in every text)"
        )
    said += f", 1 % more at {number(float(nudged.iloc[0]))}" if len(nudged) else ""
    return (
        f"{said}. The {len(controls)} controls, other dimensions at the same place and other places in the same dimension, lie "
        f"between {number(controls.min())} and {number(controls.max())}."
    )


def position_not_token(rows: pd.DataFrame, birth: Birth) -> str:
    """The value at its birth under each first token, and of the same token later in a chat."""
    at = rows[rows["layer"] == birth.birth]
    first, later = at[at["pos"] == 0], at[at["pos"] > 0]
    told = "; ".join(f"{markdown(visible(row.reading))}: {number(row.value)}" for row in first.itertuples())
    said = f"At position 0 dimension {birth.dim} holds, at point {birth.birth}: {told}."
    if len(later):
        said += (
            " The same token again later in the chat: "
            + ", ".join(f"{number(row.value)} at position {row.pos}" for row in later.itertuples())
            + "."
        )
    return said
