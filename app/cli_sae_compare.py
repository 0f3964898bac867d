"""The commands ``sae compare`` and ``sae absorption``: two SAEs on one text; letters that latents of words swallow."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.measured import Measured
from app.cli_sae_check import model_for
from app.report.files import check_place, write_whole
from app.text import json_rows
from probes.progress import Progress

__all__ = ["add_compare"]

JsonOption = Annotated[str, typer.Option("--json", help="Where the result goes: a file, or - for standard output.")]
ModelOption = Annotated[str | None, typer.Option(help="The model they read; left out: the one it was made for.")]


def add_compare(
    saes: typer.Typer, watched: Callable[[], AbstractContextManager[Progress]], say: Callable[[str], None]
) -> None:
    """Register the commands; ``watched`` shows progress, ``say`` prints a line."""

    @saes.command("compare")
    def compare(
        a: Annotated[str, typer.Argument(help="An installed SAE.")],
        b: Annotated[str, typer.Argument(help="Another of the same model.")],
        text_file: Annotated[list[Path], typer.Option(help="Text both read; repeatable.")],
        json_out: JsonOption,
        tokens: Annotated[int, typer.Option(min=16, help="Tokens of text that are read at most.")] = 20_000,
        model: ModelOption = None,
    ) -> None:
        """Match the latents of two SAEs on one text; compare what the matches write; find latents that split."""
        _check(json_out)
        from probes.model.shelf import Shelf
        from probes.saes.compare import compare_saes
        from probes.saes.loading import choose, load_sae
        from probes.saes.sequences import cut_documents, read_files

        files = read_files(text_file)
        with watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(a), progress=progress.part(0.0, 0.1))
            both = [load_sae(choose(name, loaded.facts), loaded.facts) for name in (a, b)]
            sequences = cut_documents(files, loaded, n_tokens=tokens)
            found = compare_saes(loaded, both[0], both[1], sequences, progress.part(0.1, 1.0))
        matches, geometry, table = found.matches, found.geometry, found.children
        split = table.groupby("latent").size()
        matched = matches.r[matches.best >= 0]
        document = {
            "compare": {
                "a": found.a,
                "b": found.b,
                "model": loaded.facts.name,
                "n_tokens": found.n_tokens,
                "n_matched": len(matched),
                "mean_r": float(matched.mean()) if len(matched) else None,
                "share_unique": matches.share_unique if len(matched) else None,
                "n_pairs": geometry.n_pairs,
                "svcca": _told(geometry.svcca),
                "svcca_null": _told(geometry.svcca_null),
                "svcca_p": _told(geometry.svcca_p),
                "rsa": _told(geometry.rsa),
                "rsa_null": _told(geometry.rsa_null),
                "rsa_p": _told(geometry.rsa_p),
            },
            "splitting": {
                "narrow": found.narrow,
                "wide": found.wide,
                "n_with_children": len(split),
                "n_split": int((split > 1).sum()),
            },
            "children": table.to_dict("records"),
            "matches": [
                {"latent_b": index, "latent_a": best, "r": r, "kept": kept}
                for index, (best, r, kept) in enumerate(
                    zip(matches.best.tolist(), matches.r.tolist(), found.kept.tolist(), strict=True)
                )
                if best >= 0
            ],
        }
        _write(json_out, document, say)

    @saes.command("absorption")
    def absorption(
        sae: Annotated[str, typer.Argument(help="An installed SAE, or auto.")],
        json_out: JsonOption,
        words: Annotated[int, typer.Option(help="Words of each letter, 50 to 200.")] = 60,
        shots: Annotated[int, typer.Option(help="Examples before each word, 1 to 20.")] = 4,
        examined: Annotated[int, typer.Option(help="Words of each letter looked at one latent at a time.")] = 10,
        seed: Annotated[int, typer.Option(min=0, help="Which words and examples are drawn.")] = 0,
        model: ModelOption = None,
    ) -> None:
        """Ask for first letters, probe for them, and count the words whose letter another latent has taken over."""
        _check(json_out)
        from probes.model.shelf import Shelf
        from probes.saes.loading import choose, load_sae
        from probes.saes.spelling import SpellingRequest, measure_absorption

        request = SpellingRequest(words, shots, examined, seed)
        with watched() as progress:
            loaded = Shelf(allow_paths=True).get(model or model_for(sae), progress=progress.part(0.0, 0.1))
            chosen = load_sae(choose(sae, loaded.facts), loaded.facts)
            found = measure_absorption(loaded, chosen, request, progress.part(0.1, 1.0))
        document = {
            "absorption": {
                "sae": chosen.info.name,
                "model": loaded.facts.name,
                "says": found.says,
                "icl_accuracy": _told(found.told),
                "probe_f1": _told(found.f1),
                "rate": _told(found.rate),
            },
            "probe_f1": found.f1_by_letter,
            "letters": json_rows(found.letters),
            "words": json_rows(found.words),
        }
        _write(json_out, document, say)


def _told(measured: Measured) -> dict[str, Any]:
    defined = measured.status in ("ok", "low_confidence")
    return {
        "value": measured.value if defined else None,
        "n_used": measured.n_used,
        "status": measured.status,
    }


def _check(where: str) -> None:
    if where != "-":
        check_place(Path(where), "--json")


def _write(where: str, document: dict[str, Any], say: Callable[[str], None]) -> None:
    text = json.dumps(document, allow_nan=False, ensure_ascii=False)
    if where == "-":
        say(text)
    else:
        write_whole(Path(where), (text + "\n").encode())
