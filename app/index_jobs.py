"""Indexing an SAE in the background: first what it will take, then the index. No streamlit."""

import hashlib
from collections.abc import Sequence

from app.jobs import Job
from app.services import Services
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.prompts import bank, examples
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.index import IndexPlan, index_sae, plan_index, store_index
from probes.saes.loading import load_sae
from probes.saes.sequences import FileText, TextDocument, TextSequence, cut_documents

__all__ = ["index_job", "job_key", "own_texts", "plan_job", "shipped_texts"]

_MOST_TOKENS = 200_000


def shipped_texts() -> tuple[FileText, ...]:
    """The texts that come with the app: the example passages and the mean bank, some 8,000 tokens."""
    passages = [FileText("example passage", one.title, one.text) for one in examples()]
    return (*passages, *(FileText(one.source, one.id, one.text) for one in bank()))


def own_texts(named: Sequence[tuple[str, bytes]]) -> tuple[FileText, ...]:
    """Files that were handed in, as documents. Raises ValueError for one that is no UTF-8 text."""
    found = []
    for name, content in named:
        try:
            found.append(FileText("file", name[:120], content.decode("utf-8-sig")))
        except UnicodeDecodeError:
            raise ValueError(f"The file {name[:80]} is no UTF-8 text.") from None
    return tuple(found)


def _digest(texts: Sequence[FileText]) -> str:
    """What tells one choice of texts from another."""
    whole = hashlib.blake2b(digest_size=8)
    for one in texts:
        whole.update(repr((one.source, one.name, one.text)).encode("utf-8", "surrogatepass"))
    return whole.hexdigest()


def plan_job(held: Services, model: str, info: SAEInfo, texts: Sequence[FileText]) -> Job:
    """Say in the background what an index will take; ``job.result`` is an IndexPlan."""

    def work(progress: Progress) -> IndexPlan:
        loaded = held.shelf.get(model, progress=progress.part(0.0, 0.6))
        progress.step(0.7, "reading a sample")
        return plan_index(loaded, load_sae(info, loaded.facts), _cut(texts, loaded))

    return held.desk.submit(model, job_key("index-plan", model, info, texts), f"Plan an index of {info.name}", work)


def index_job(held: Services, model: str, info: SAEInfo, texts: Sequence[FileText], corpus: str) -> Job:
    """Index an SAE in the background once it was planned; ``job.result`` is the id of the index, stored by then."""

    def work(progress: Progress) -> str:
        loaded = held.shelf.get(model, progress=progress.part(0.0, 0.1))
        sae = load_sae(info, loaded.facts)
        index = index_sae(loaded, sae, _cut(texts, loaded), corpus, progress=progress.part(0.1, 0.97))
        progress.step(0.97, "writing it to the store")
        return store_index(held.store, index)

    return held.desk.submit(model, job_key("index", model, info, texts), f"Index {info.name}", work)


def job_key(kind: str, model: str, info: SAEInfo, texts: Sequence[FileText]) -> tuple[str, ...]:
    """What the desk knows a plan (``index-plan``) or an index (``index``) of these texts by."""
    return kind, model, content_digest(info.folder), _digest(texts)


def _cut(texts: Sequence[TextDocument], loaded: LoadedModel) -> tuple[TextSequence, ...]:
    return cut_documents(texts, loaded, n_tokens=_MOST_TOKENS, per_document=_MOST_TOKENS)
