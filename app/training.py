"""Training an SAE as the app does it: one at a time on a server, on a thread of its own. No streamlit.

The model's lock is held for a batch of chunks at a time, so the passes of others wait for no more than that.
"""

import hashlib
from collections.abc import Callable, Sequence

from transformers import AutoConfig

from app.jobs import Job, Key
from app.services import Services
from probes.model.catalog import find
from probes.progress import Progress
from probes.prompts import bank, examples
from probes.saes.own_folder import Unfinished
from probes.saes.own_plan import Forward
from probes.saes.own_request import OwnRequest, Text
from probes.saes.own_text import count_tokens
from probes.saes.training import begin, proceed, shape_of

__all__ = ["KEY", "built_in", "name_of", "resume", "shape", "start", "tokens_of"]

KEY: Key = ("train an SAE",)
_LABEL = "Train "


def start(held: Services, request: OwnRequest, texts: Sequence[Text]) -> Job:
    """Begin a training in the background; the one that runs, if there is one. ``job.result`` is the SAE's name."""

    def work(progress: Progress) -> str:
        model = held.shelf.get(request.model, progress=progress.part(0.0, 0.02))
        progress.step(0.02, "cutting the text into chunks")
        begin(request, texts, model)
        return proceed(request.name, model, progress.part(0.02, 1.0)).name

    return _submit(held, request.name, work)


def resume(held: Services, begun: Unfinished) -> Job:
    """Go on with a training in the background."""

    def work(progress: Progress) -> str:
        model = held.shelf.get(begun.request.model, progress=progress.part(0.0, 0.02))
        return proceed(begun.request.name, model, progress.part(0.02, 1.0)).name

    return _submit(held, begun.request.name, work)


def name_of(job: Job) -> str:
    """The SAE a job of this module trains."""
    return job.label.removeprefix(_LABEL)


def built_in() -> tuple[Text, ...]:
    """The texts that come with the app: a few thousand tokens, enough to see how training goes."""
    texts = [(one.id, one.text) for one in examples()] + [(one.id, one.text) for one in bank()]
    return tuple(Text(f"built-in: {name}", text) for name, text in texts)


def tokens_of(held: Services, model: str, texts: Sequence[Text]) -> tuple[int, bool]:
    """Tokens of the texts for a model, and whether all were counted; remembered."""
    digest = hashlib.blake2b(
        "\0".join(one.text for one in texts).encode("utf-8", "replace"), digest_size=16
    ).hexdigest()
    found: tuple[int, bool] = held.memo.get(
        ("tokens of texts", model, digest), lambda: count_tokens(texts, held.tokenizer(model))
    )
    return found


def shape(held: Services, model: str) -> Forward:
    """The shape of a model by its configuration; the weights are not needed. Raises BadRequest or OSError."""
    loaded = held.shelf.loaded(model)
    if loaded is not None:
        return shape_of(loaded)

    def read() -> Forward:
        source = find(model, allow_paths=False)
        config = AutoConfig.from_pretrained(source.folder or source.hub_id, trust_remote_code=False).get_text_config()
        width = int(config.hidden_size)
        inner = int(getattr(config, "intermediate_size", None) or 4 * width)
        return Forward(int(config.num_hidden_layers), width, 4 * width * width + 3 * width * inner)

    found: Forward = held.memo.get(("shape of model", model), read)
    return found


def _submit(held: Services, name: str, work: Callable[[Progress], str]) -> Job:
    return held.desk.submit("training", KEY, f"{_LABEL}{name}", work)
