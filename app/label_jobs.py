"""Searching a word for a latent in the background, and what earlier searches found. No streamlit."""

from app.jobs import Job
from app.services import Services
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.loading import load_sae
from probes.saes.word_label import WordLabel, search_label

__all__ = ["label_job", "label_key", "label_sentences"]


def label_job(held: Services, model: str, facts: ModelFacts, info: SAEInfo, latent: int) -> Job:
    """Search in the background; ``job.result`` is a WordLabel, which is stored by then."""

    def work(progress: Progress) -> WordLabel:
        loaded = held.shelf.get(model, facts.dtype, progress=progress.part(0.0, 0.05))
        sae = load_sae(info, loaded.facts)
        return search_label(loaded, sae, held.store, latent, progress=progress.part(0.05, 1.0))

    key = label_key(facts, info, latent)
    return held.desk.submit(model, key, f"Search a word for latent {latent}", work)


def label_key(facts: ModelFacts, info: SAEInfo, latent: int) -> tuple[str, ...]:
    """What the desk knows a search by."""
    return "word-label", facts.fingerprint, content_digest(info.folder), str(latent)


def label_sentences(found: WordLabel) -> tuple[str, str, str]:
    """The word, how good it is, and how good its judge, in plain text: what a page and the command line say of it."""
    best, *others = (one.word for one in found.words)
    return (
        f"Searched word: {best}" if found.label else f"No word found, the best ({best}) is no better than chance",
        f"AUC {found.auc:.2f} on texts held out, {found.n_positive} with the latent and {found.n_negative} without (chance "
        f"0.50 ± {found.chance_sd:.2f}); the same search with shuffled labels {found.control_auc:.2f}. "
        f"Next on the texts searched with: {', '.join(others) or 'none'}.",
        f"The judge, {found.judge.model}, tells known topics apart with an AUC of {found.judge.auc:.2f} "
        f"({found.judge.n_texts} texts).",
    )
