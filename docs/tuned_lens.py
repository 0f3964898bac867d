"""The section *Measured* of docs/methods/tuned-lens.md and its picture, of an installed lens of the embedded model.

``python -m app lens train --model smollm2-135m-instruct --name NAME``, then ``python -m docs.tuned_lens NAME``.
"""

import sys
from pathlib import Path
from typing import Any

from app.figures.tuned_lens import held_out_lines
from app.report.pictures import picture
from app.services import example_ask, make_request, start
from probes.lenses.folder import lens_folder
from probes.lenses.training import read_report
from probes.model.catalog import EMBEDDED
from probes.progress import Progress
from probes.request import ProbeCall

PAGE = Path(__file__).parent / "methods" / "tuned-lens.md"
IMAGE = Path(__file__).parent / "images" / "tuned-lens.png"
HEADING = "## Measured"
VARIANTS = {"raw": "", "mean": "@mean", "tuned": "@tuned"}


def measured(report: dict[str, Any], passage: dict[str, list[float]]) -> str:
    """The section: what was trained and the table by point."""
    kl, request = report["kl"], report["request"]
    below = {
        other: [point for point, (a, b) in enumerate(zip(kl["tuned"], kl[other], strict=True)) if a >= b]
        for other in ("raw", "mean")
    }
    said = [
        f"below the {name} lens at every point{f' but {points}' if points else ''}"
        for (_, points), name in zip(below.items(), ("raw", "mean-corrected"), strict=True)
    ]
    head = (
        f"{HEADING}\n\n`python -m app lens train --model {request['model']} --name {request['name']}"
        f" --tokens {request['tokens']} --learning-rate {request['learning_rate']:g}`: {report['chunks']:,} chunks of "
        f"{report['context']} tokens, {report['positions_a_chunk']} scored positions each, {report['steps']} steps, "
        f"{report['seconds'] / 60:.0f} minutes on two cores. Mean KL(p_L || p_l) in nats at {report['held_out_positions']:,} "
        f"positions (all but 0) of held-out documents, and of the example passage, which is of another kind than the text it was "
        f"trained on. On held-out text the tuned lens is {' and '.join(said)}.\n\n"
        "![KL to the end on held-out text](../images/tuned-lens.png)\n\n"
        "| point | raw | mean-corrected | tuned | passage: raw | mean-corrected | tuned |\n|---|---|---|---|---|---|---|\n"
    )
    rows = [
        " | ".join(
            ["", str(point), *(f"{values[v][point]:.3f}" for values in (kl, passage) for v in VARIANTS), ""]
        ).strip()
        for point in range(len(kl["raw"]))
    ]
    return head + "\n".join(rows) + "\n"


def of_passage(name: str) -> dict[str, list[float]]:
    """Mean KL by point over all positions of the example passage but 0."""
    held = start()
    try:
        request = make_request(example_ask(EMBEDDED), held.shelf, Progress())
        result = held.runner.run(request.with_probes(ProbeCall("lens", {"positions": "all", "tuned": name})))
        rows = result.table("layer_metrics").set_index(["metric", "layer"])["value"]
        return {variant: rows[f"lens_kl{suffix}"].sort_index().tolist() for variant, suffix in VARIANTS.items()}
    finally:
        held.close()


def main() -> None:
    name = sys.argv[1]
    report: dict[str, Any] = read_report(lens_folder(name))
    section = measured(report, of_passage(name))
    IMAGE.write_bytes(picture(held_out_lines(report["kl"], len(report["kl"]["raw"])), "png"))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(HEADING)
    after = rest.partition("\n## ")[2]
    PAGE.write_text(before.rstrip() + "\n\n" + section + (f"\n## {after}" if after else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
