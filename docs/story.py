"""The article docs/one-number-in-four-million.md and its pictures, from runs of the embedded model: ``make story``."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from playwright.sync_api import Page

from app.services import Services, example_requests, start
from app.story import Plan, damage, largest_birth, make_plan, submit, traced
from app.story_text import born, damaged, position_not_token, sinks_begin, written
from app.text import number
from app.trial import summary
from cache.home import home
from docs.camera import needs_chromium, opened_app
from docs.screenshots import IMAGES, PATIENCE
from probes.model.catalog import EMBEDDED
from probes.progress import Progress
from probes.request import ProbeCall, library_versions
from probes.runner import RunResult
from tests.serve import furnish, idle

ARTICLE = Path(__file__).parent / "one-number-in-four-million.md"
PICTURES = ("birth", "writers", "sinks", "damage", "masked", "traces", "alpha", "heads")
_COLUMNS = {
    "changed": "changed",
    "perplexity": "perplexity",
    "sink_share_on": "sink heads",
    "effect_kl": "KL, nats",
    "effect_flip": "flips",
}
_HEADS = ProbeCall("head_effects", {"positions": "all"})


def tell(held: Services) -> str:
    """Run everything the story is told from and write it down."""
    *_, request = example_requests(held.shelf, Progress())
    clean = held.runner.run(request)
    birth = largest_birth(clean)
    if birth is None:
        sys.exit("the example has no massive activation to tell of")
    plan = make_plan(held, clean, birth)
    job = submit(held, plan)
    job.wait()
    if job.error is not None:
        sys.exit(job.error)
    heads = held.runner.run(request.with_probes(_HEADS))
    tokens = tuple(clean.tokens.sort_values("pos")["text"])
    table, rows = damage(held, plan), traced(held, plan)
    parts = [
        f"# One number in {_millions(clean)}",
        _foreword(clean),
        born(clean, birth, tokens),
        _picture("birth", "largest entries by point"),
        "## Two neurons",
        written(birth),
        _picture("writers", "attention, MLP and the MLP's neurons"),
        "## Then heads come to rest on position 0",
        sinks_begin(clean, birth),
        _picture("sinks", "share of sink heads by point"),
        "## What hangs on it",
        damaged(table, plan),
        _picture("damage", "perplexity after a change of one number, and of its controls"),
        _rows(table, tuple(_COLUMNS)),
        *_masked(held, plan),
        "## Position, not token",
        position_not_token(rows, birth),
        _picture("traces", f"dimension {birth.dim} under other first tokens"),
        "## A number that depends on how it is asked for",
        "Whether one row of the matrix dwarfs all others is a matter of preparation to a spectrum:",
        _picture("alpha", "alpha under every convention"),
        "## And heads?",
        _best_heads(heads),
        _picture("heads", "every head set to zero in turn"),
        "## Again",
        _again(plan),
    ]
    return "\n\n".join(parts) + "\n"


def _foreword(clean: RunResult) -> str:
    info = clean.info
    versions = ", ".join(f"{name} {version}" for name, version in sorted(library_versions().items()))
    return (
        f"Written by `make story`: {info.model} ({info.weights}), {info.n_tokens} tokens of the example passage, {info.device} "
        f"{info.dtype}; {versions}. In the app this is the page **One number**, where every figure is live. One text, one model: "
        "what it shows is an observation; [how to read it](methods/story.md) says when not to trust it."
    )


def _masked(held: Services, plan: Plan) -> Sequence[str]:
    if plan.sink is None:
        return ()
    table = summary(plan.sink.found(held))
    clean, target = table["perplexity"].iloc[0], table["perplexity"].iloc[1]
    controls = table.loc[table["role"] == "control", "perplexity"]
    return (
        "## Are the sinks needed?",
        f"From block {plan.sink.target.layer} on nobody may look at position {plan.birth.position}, and what is left of each row "
        f"is rescaled: the perplexity goes from {number(clean)} to **{number(target)}**. The same done to {len(controls)} other "
        f"columns leaves it between {number(controls.min())} and {number(controls.max())}.",
        _picture("masked", "perplexity with a key masked"),
        _rows(table, tuple(_COLUMNS)),
    )


def _best_heads(heads: RunResult) -> str:
    rows = heads.table("head_metrics")
    rows = rows[rows["metric"] == "effect_nll"].sort_values("value", ascending=False)
    top, least = rows.head(5), rows.iloc[-1]
    named = ", ".join(f"{r.layer}.{r.head} ({r.value:+.3f})" for r in top.itertuples())
    return (
        f"Of all {len(rows)} heads, set to zero one at a time, these cost the text most, in nats a token over "
        f"{int(top['n_used'].iloc[0])} tokens: {named}. Without head {least['layer']}.{least['head']} the text gets likelier "
        f"({least['value']:+.3f}). The median of all heads is {rows['value'].median():+.4f}."
    )


def _again(plan: Plan) -> str:
    born = plan.birth
    edit = json.dumps(
        {
            "site": "resid",
            "layer": born.birth,
            "positions": [born.position],
            "dims": [born.dim],
            "op": "set",
            "source": "zero",
        }
    )
    run = f"python -m app run --model {EMBEDDED} --text-file passage.txt"
    return (
        "The app: open the Overview, click the first event, click *entry to zero*. The command line, with the passage in "
        "`passage.txt` "
        f"and the run id that the first line writes into `clean.json`:\n\n```sh\n{run} --json clean.json\n"
        f"{run} --probes effect --set effect.against=RUN_ID \\\n    --edit '{edit}' --json -\n```"
    )


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> str:
    heads = {
        "changed": "changed",
        "perplexity": "perplexity",
        "sink_share_on": "sink heads",
        "effect_kl": "KL, nats",
        "effect_flip": "flips",
    }
    lines = [" | ".join(heads[c] for c in columns), " | ".join("---" for _ in columns)]
    for row in table[list(columns)].itertuples(index=False):
        cells = [str(row[0]), *("" if pd.isna(value) else number(value) for value in row[1:])]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _picture(name: str, what: str) -> str:
    return f"![{what}](images/story-{name}.png)"


def _millions(clean: RunResult) -> str:
    count = (clean.facts.n_layers + 1) * clean.info.n_tokens * clean.facts.d_model
    return f"{count / 1e6:.1f} million"


def take(page: Page, address: str) -> None:
    """The panels of the story page, each a picture of its own."""
    page.goto(f"{address}/story")
    page.locator(".st-key-panel-story-traces .js-plotly-plot").wait_for(timeout=PATIENCE)
    button = page.get_by_text("Set every head to zero, one after another")
    if button.count():
        button.click()
    page.locator(".st-key-panel-story-heads .js-plotly-plot").wait_for(timeout=PATIENCE)
    idle(page)
    for name in PICTURES:
        panel = page.locator(f".st-key-panel-story-{name}")
        panel.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        panel.locator(f".st-key-plot-story-{name}").screenshot(path=IMAGES / f"story-{name}.png")


def main() -> None:
    needs_chromium()
    with tempfile.TemporaryDirectory() as folder:
        place = furnish(Path(folder) / "home", home() / "models" / EMBEDDED)
        os.environ["EIGENSCOPE_HOME"] = str(place)
        held = start()
        article = tell(held)
        held.close()
        with opened_app(place) as (page, address):
            take(page, address)
        ARTICLE.write_text(article, encoding="utf-8")


if __name__ == "__main__":
    main()
