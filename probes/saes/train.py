"""Makes the shipped SAE: ``python -m probes.saes.train --out FOLDER``.

Fetches the corpus and the embedded model if they are not there, collects residual states, trains, and writes a SAELens
folder with its card. The same command with the same seed gives the same SAE on the same machine and thread count.
"""

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from analysis.sae_metrics import corpus_variance
from analysis.topk_sae import TopKConfig, TopKSAE
from cache.home import home
from probes.model.catalog import EMBEDDED
from probes.model.embedded import fetch_embedded
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.saes.activations import CONTEXT, Chunks, States, chunk_documents, collect_states
from probes.saes.card import Report, write_card, write_folder
from probes.saes.corpus import documents, fetch_corpus
from probes.saes.fitting import densities, fit, input_scale, measure
from probes.saes.folder import read_info
from probes.saes.loading import load_sae
from probes.saes.quality import check_sae
from probes.saes.sequences import TextSequence

__all__ = ["TrainRequest", "main", "train"]

_LOG = logging.getLogger(__name__)
_BATCH = 1024
_MAX_CHUNKS = 20_000
_LOSS_TOKENS = 32_768
_PRODUCTS = torch.bfloat16
"""Of the states of training: nearly twice as fast on a CPU that has them. What is measured is measured in float32."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train: a residual point, a width and sparsity, and how often each state is seen."""

    point: int = 16
    d_sae: int = 4608
    k: int = 32
    epochs: float = 3.0
    learning_rate: float = 1e-3
    seed: int = 0


def train(
    model: LoadedModel,
    chunks: Chunks,
    held_out: Chunks,
    request: TrainRequest,
    work: Path,
    out: Path,
    progress: Progress,
) -> Report:
    """Train on ``chunks``, save to ``out`` in half precision, and measure the saved SAE on ``held_out``.

    ``work`` keeps the collected states, so that another width or seed need not run the model again, and the checkpoint
    of a training that was broken off.
    """
    first = progress.part(0.0, 0.5)
    states = collect_states(model, chunks, request.point, work / "train", first, products=_PRODUCTS)
    unseen = collect_states(model, held_out, request.point, work / "held-out", progress.part(0.5, 0.55))
    width = states.resid.shape[1]
    scale, sample = input_scale(states.resid)
    config = TopKConfig(
        d_in=width,
        d_sae=request.d_sae,
        k=request.k,
        steps=max(1, round(request.epochs * len(states.resid) / _BATCH)),
        learning_rate=request.learning_rate,
        seed=request.seed,
    )
    fitted = fit(config, states.resid, _BATCH, scale, progress.part(0.55, 1.0), work)
    sae = _rounded(fitted.sae.with_input_scale(scale))
    variance = corpus_variance(sample.float())
    report = Report(
        facts=model.facts,
        point=request.point,
        config=config,
        context=CONTEXT,
        epochs=request.epochs,
        scale=scale,
        corpus_variance=variance,
        n_train=len(states.resid),
        n_held_out=len(unseen.resid),
        n_massive=states.n_massive + unseen.n_massive,
        quality=measure(sae, unseen.resid, variance),
        by_source=_by_source(sae, unseen, held_out, variance),
        density=densities(sae, states.resid),
        log=fitted.log,
        seconds_training=fitted.seconds,
        products=str(_PRODUCTS).removeprefix("torch."),
    )
    write_folder(sae, report, out)
    checked = check_sae(model, load_sae(read_info(out), model.facts), _sequences(held_out), loss_tokens=_LOSS_TOKENS)
    write_card(report, checked, out)
    return report


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(prog="python -m probes.saes.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the SAE to")
    parser.add_argument("--work", type=Path, default=home() / "training", help="folder for the corpus and the states")
    usual = TrainRequest()
    parser.add_argument("--max-chunks", type=int, default=_MAX_CHUNKS, help="train on at most so many chunks")
    parser.add_argument("--epochs", type=float, default=usual.epochs)
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--seed", type=int, default=usual.seed)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    fetch_corpus(arguments.work / "corpus")
    fetch_embedded(Progress())
    model = Shelf().get(EMBEDDED)
    read = documents(arguments.work / "corpus")
    chunks, held_out = chunk_documents(read, model.tokenizer, model.facts.bos_id)
    request = TrainRequest(epochs=arguments.epochs, learning_rate=arguments.learning_rate, seed=arguments.seed)
    report = train(
        model,
        chunks.first(arguments.max_chunks),
        held_out,
        request,
        arguments.work,
        arguments.out,
        Progress(_Printer()),
    )
    _LOG.info("held-out explained variance %.4f", report.quality.explained_variance.value)


class _Printer:
    """Logs progress at most every ten seconds."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, fraction: float, what: str) -> None:
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            _LOG.info("%3.0f %%  %s", 100 * fraction, what)


def _rounded(sae: TopKSAE) -> TopKSAE:
    """The SAE as it will be read back from half precision, so that what is measured is what is shipped."""
    w_enc, b_enc, w_dec, b_dec = (w.half().float() for w in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec))
    return TopKSAE(w_enc, b_enc, w_dec, b_dec, sae.k)


def _sequences(chunks: Chunks) -> list[TextSequence]:
    """A fair sample of the chunks, which come in random order, as what :func:`check_sae` reads."""
    rows = chunks.ids[: _LOSS_TOKENS // CONTEXT].tolist()
    return [TextSequence(source, "", tuple(row)) for source, row in zip(chunks.sources, rows, strict=False)]


def _by_source(sae: TopKSAE, unseen: States, chunks: Chunks, variance: float) -> dict[str, tuple[float, int]]:
    """Explained variance and number of states of each source of held-out text."""
    found = {}
    for source in sorted(set(chunks.sources)):
        of_source = torch.tensor([name == source for name in chunks.sources])[unseen.chunk]
        quality = measure(sae, unseen.resid[of_source], variance)
        found[source] = (quality.explained_variance.value, quality.explained_variance.n_used)
    return found


if __name__ == "__main__":
    main()
