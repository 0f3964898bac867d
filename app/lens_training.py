"""Training a tuned lens as the app does it: in the queue of trainings, on a thread of its own. No streamlit.

The model's lock is held for a batch of chunks at a time, so the passes of others wait for no more than that.
"""

from collections.abc import Callable, Sequence

from app.jobs import Job, Key
from app.services import Services
from probes.lenses.shelf import Unfinished
from probes.lenses.text import corpus_excerpts
from probes.lenses.training import begin, proceed
from probes.lenses.work import LensRequest
from probes.progress import Progress
from probes.saes.own_request import Text

__all__ = ["KEY", "name_of", "resume", "start"]

KEY: Key = ("train a tuned lens",)
_LABEL = "Train the lens "


def start(held: Services, request: LensRequest, texts: Sequence[Text] | None) -> Job:
    """Begin a training in the background; the one that runs, if there is one. ``job.result`` is the lens's name.

    Without ``texts`` it reads the corpus of the shipped SAE, which is fetched if it is not there.
    """

    def work(progress: Progress) -> str:
        model = held.shelf.get(request.model, progress=progress.part(0.0, 0.02))
        progress.step(0.02, "reading the text" if texts is not None else "reading the corpus, fetched the first time")
        begin(request, corpus_excerpts(request.seed) if texts is None else texts, model)
        return proceed(request.name, model, progress.part(0.03, 1.0)).name

    return _submit(held, request.name, work)


def resume(held: Services, begun: Unfinished) -> Job:
    """Go on with a training in the background."""
    request = begun.work.request

    def work(progress: Progress) -> str:
        model = held.shelf.get(request.model, progress=progress.part(0.0, 0.02))
        return proceed(request.name, model, progress.part(0.02, 1.0)).name

    return _submit(held, request.name, work)


def name_of(job: Job) -> str:
    """The lens a job of this module trains."""
    return job.label.removeprefix(_LABEL)


def _submit(held: Services, name: str, work: Callable[[Progress], str]) -> Job:
    return held.desk.submit("training", KEY, f"{_LABEL}{name}", work)
