"""The command ``sae label``: a word for a latent, searched with the model as its own judge, stored and written as JSON."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_sae_check import model_for
from app.report.files import check_place, write_whole
from app.text import printable
from probes.progress import Progress

__all__ = ["add_label"]


def add_label(
    saes: typer.Typer,
    opened: Callable[[str | None], AbstractContextManager[Any]],
    watched: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> None:
    """Register the command; ``opened`` opens a store, ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("label")
    def label(
        sae: Annotated[str, typer.Argument(help="An installed SAE that was indexed, or auto.")],
        latent: Annotated[int, typer.Argument(help="The number of the latent.")],
        json_out: Annotated[str | None, typer.Option("--json", help="Where the result goes: a file, or -.")] = None,
        model: Annotated[
            str | None, typer.Option(help="The model it reads; left out: the one it was made for.")
        ] = None,
        seed: Annotated[int, typer.Option(min=0, help="Which texts are held out, and where the search begins.")] = 0,
        store: Annotated[str | None, typer.Option("--store", help="The store's file, or :memory:.")] = None,
    ) -> None:
        """Search a word for a latent by gradient descent in token space; status 1 if the model is no judge of words."""
        if json_out not in (None, "-"):
            check_place(Path(str(json_out)), "--json")
        from analysis.token_descent import DescentRules
        from app.label_jobs import label_sentences
        from probes.model.shelf import Shelf
        from probes.saes.judge_check import JudgeRefused
        from probes.saes.loading import choose, load_sae
        from probes.saes.shipped_index import import_shipped_index
        from probes.saes.word_label import search_label

        with opened(store) as held, watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(sae), progress=progress.part(0.0, 0.05))
            chosen = load_sae(choose(sae, loaded.facts), loaded.facts)
            import_shipped_index(held, chosen.info.folder)
            facts = loaded.facts
            whose = {"sae": chosen.info.name, "latent": latent, "model": facts.name, "fingerprint": facts.fingerprint}
            try:
                rules = DescentRules(seed=seed)
                found = search_label(loaded, chosen, held, latent, rules, progress.part(0.05, 1.0))
            except JudgeRefused as refused:
                judge = {**asdict(refused.check), "auc": refused.check.auc}
                _tell(json_out, {**whose, "status": "refused", "label": None, "judge": judge}, say)
                raise
        if json_out != "-":
            say("\t".join(map(printable, label_sentences(found))))
        judge = {**asdict(found.judge), "auc": found.judge.auc}
        status = "no_word" if found.label is None else "ok"
        shown = {"status": status, "label": found.label, "auc": found.auc, "chance_sd": found.chance_sd}
        _tell(json_out, {**whose, **shown, **asdict(found), "judge": judge}, say)


def _tell(where: str | None, document: dict[str, Any], say: Callable[[str], None]) -> None:
    if where is None:
        return
    text = json.dumps({"label": document}, allow_nan=False, ensure_ascii=False)
    if where == "-":
        say(text)
    else:
        write_whole(Path(where), (text + "\n").encode())
