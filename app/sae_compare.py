"""Comparing two SAEs and looking for absorption in one, in the background, and what the store knows of both. No streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.measured import Measured
from app.jobs import Job, Key
from app.quality import fitting
from app.services import Services
from app.text import json_rows
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.saes.compare import Comparison, compare_saes
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.loading import load_sae
from probes.saes.quality_text import BUILTIN, TOKENS, builtin_text, corpus_name
from probes.saes.sequences import FileText, cut_documents
from probes.saes.spelling import Absorption, SpellingRequest, measure_absorption

__all__ = [
    "Answer", "absorbed", "absorption_document", "absorption_job", "absorption_key", "compare_job", "compare_key",
    "compared", "comparison_document",
]  # fmt: skip

_COMPARE, _ABSORPTION = "compare", "absorption"
_TABLES = {
    "matches": ["latent_b", "latent_a", "r", "kept"],
    "children": ["latent", "child", "cosine", "correlation"],
    "letters": [
        "letter", "probe_f1", "main", "main_f1", "n_words", "n_right", "n_silent", "n_examined", "n_absorbed", "rate",
    ],
    "words": ["letter", "word", "main", "latent", "effect", "margin", "cosine", "absorbed"],
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A stored answer about installed SAEs (A and B of a comparison, or one); ``document`` is what the command line writes."""

    saes: tuple[SAEInfo, ...]
    document: Mapping[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the document by its name; with its columns even where it is empty."""
        return pd.DataFrame(self.document[name], columns=_TABLES[name])

    @property
    def by_width(self) -> tuple[SAEInfo, SAEInfo]:
        """The narrower and the wider of two; A and B where they are equally wide."""
        a, b = self.saes
        return (a, b) if a.d_sae <= b.d_sae else (b, a)


def compare_key(model: str, a: str, b: str) -> Key:
    """Under which the desk knows a comparison."""
    return ("sae compare", model, a, b)


def absorption_key(model: str, sae: str) -> Key:
    """Under which the desk knows a search for absorption."""
    return ("sae absorption", model, sae)


def compare_job(
    held: Services, request: tuple[str, str, str], a: SAEInfo, b: SAEInfo, text: FileText | None = None
) -> Job:
    """Compare two SAEs on built-in texts, or on ``text``, and store what was found; ``request`` is model, dtype, device."""

    def work(progress: Progress) -> None:
        model = held.shelf.get(*request, progress=progress.part(0.0, 0.1))
        both = [load_sae(info, model.facts) for info in (a, b)]
        given = builtin_text(model, TOKENS) if text is None else cut_documents([text], model, n_tokens=TOKENS)
        found = compare_saes(model, both[0], both[1], given, progress.part(0.1, 1.0))
        name = corpus_name(BUILTIN if text is None else text.name, given)
        document = comparison_document(found, model.facts.name) | {"corpus": name}
        _put(held, _COMPARE, (a, b), model.facts.fingerprint, document)

    return held.desk.submit(
        request[0], compare_key(request[0], a.name, b.name), f"Compare {a.name} with {b.name}", work
    )


def absorption_job(held: Services, request: tuple[str, str, str], sae: SAEInfo) -> Job:
    """Look for absorption in an SAE and store what was found; ``request`` is model, dtype, device."""

    def work(progress: Progress) -> None:
        model = held.shelf.get(*request, progress=progress.part(0.0, 0.1))
        read = load_sae(sae, model.facts)
        found = measure_absorption(model, read, SpellingRequest(), progress.part(0.1, 1.0))
        document = absorption_document(found, sae.name, model.facts.name)
        _put(held, _ABSORPTION, (sae,), model.facts.fingerprint, document)

    return held.desk.submit(request[0], absorption_key(request[0], sae.name), f"Absorption in {sae.name}", work)


def compared(held: Services, facts: ModelFacts, a: str = "", b: str = "") -> Answer | None:
    """What was found of two installed SAEs; with "" for both, the newest comparison on this model."""
    return _find(held, _COMPARE, facts, (a, b))


def absorbed(held: Services, facts: ModelFacts, sae: str = "") -> Answer | None:
    """What was found of absorption in an installed SAE; with "", the newest on this model."""
    return _find(held, _ABSORPTION, facts, (sae,))


def comparison_document(found: Comparison, model: str) -> dict[str, Any]:
    """A comparison as plain values: numbers, matches of B's latents in A, children of the narrower SAE's latents."""
    matches, geometry, table = found.matches, found.geometry, found.children
    split = table.groupby("latent").size()
    matched = matches.r[matches.best >= 0]
    return {
        "compare": {
            "a": found.a,
            "b": found.b,
            "model": model,
            "n_tokens": found.n_tokens,
            "n_matched": len(matched),
            "mean_r": float(matched.mean()) if len(matched) else None,
            "share_unique": matches.share_unique if len(matched) else None,
            "n_pairs": geometry.n_pairs,
            "n_directions": geometry.n_directions,
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


def absorption_document(found: Absorption, sae: str, model: str) -> dict[str, Any]:
    """Absorption as plain values: numbers, F1 of the probe of each letter, letters, words that were looked at."""
    return {
        "absorption": {
            "sae": sae,
            "model": model,
            "says": found.says,
            "icl_accuracy": _told(found.told),
            "probe_f1": _told(found.f1),
            "rate": _told(found.rate),
        },
        "probe_f1": found.f1_by_letter,
        "letters": json_rows(found.letters),
        "words": json_rows(found.words),
    }


def _told(measured: Measured) -> dict[str, Any]:
    defined = measured.status in ("ok", "low_confidence")
    return {
        "value": measured.value if defined else None,
        "n_used": measured.n_used,
        "status": measured.status,
    }


def _put(held: Services, kind: str, saes: tuple[SAEInfo, ...], fingerprint: str, document: Mapping[str, Any]) -> None:
    content, about = _contents(saes)
    held.store.put_answer(kind, content, about, fingerprint, document)


def _contents(saes: tuple[SAEInfo, ...]) -> tuple[str, str]:
    """What the store knows one or two SAEs by."""
    content, *about = (content_digest(sae.folder) for sae in saes)
    return content, "".join(about)


def _find(held: Services, kind: str, facts: ModelFacts, names: tuple[str, ...]) -> Answer | None:
    """The answer about the SAEs of these names, the newest one where they are ""."""
    infos = fitting(facts)
    known = held.store.answers(kind, facts.fingerprint)
    if any(names):
        asked = [tuple(infos[name] for name in names)] if set(names) <= set(infos) else []
    else:
        by_content = {content_digest(info.folder): info for info in infos.values()}
        pairs = [[one for one in pair if one] for pair in known[["content", "about"]].itertuples(index=False)]
        asked = [tuple(by_content[one] for one in pair) for pair in pairs if set(pair) <= set(by_content)]
    for saes in asked:
        content, about = _contents(saes)
        rows = known[(known["content"] == content) & (known["about"] == about)]
        if len(rows):
            return _read(held, (kind, content, about, facts.fingerprint), rows["created"].iloc[0], saes)
    return None


def _read(held: Services, key: tuple[str, str, str, str], created: pd.Timestamp, saes: tuple[SAEInfo, ...]) -> Answer:
    document: Mapping[str, Any] = held.memo.get(("sae answer", key, created), lambda: held.store.answer(*key))
    return Answer(saes, document)
