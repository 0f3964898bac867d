"""The folder of an SAE trained on own text: SAELens' format, and a card that says what it was made of and how well it does."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaxtyping import Float64
from torch import Tensor

from analysis.sae_metrics import ReconstructionQuality
from analysis.topk_sae import TopKConfig, TopKSAE
from probes.model.loaded import ModelFacts
from probes.saes.activations import CONTEXT
from probes.saes.fitting import LOG
from probes.saes.folder import CONFIG, sae_lens
from probes.saes.own_request import OwnRequest
from probes.saes.own_text import Split

__all__ = ["WARNING", "OwnReport", "told", "write_own"]

LOW_EV, MANY_DEAD, WARNING = 0.5, 0.4, "training warning"
_DENSE = 0.1
_LISTED = 20
_SPLITS: dict[Split, str] = {
    "documents": "whole documents, of which nothing was trained on",
    "last tenth": "the last tenth of each document, because there were too few documents to hold whole ones out: it is "
    "about the same things as the text that was trained on, so these numbers flatter",
}

_CARD = """# {name}

**{remark}.**

A TopK sparse autoencoder for the residual stream of `{model}` ({weights}) at
`{hook}` (point {point}), trained on own text in Eigenscope. The format is SAELens' (`sae_lens.SAE.load_from_disk`).

| | |
|---|---|
| width | {d_sae} latents ({factor:g} x {d_in}), k = {k} |
| stored as | float32; decoder rows have unit norm, so an activation is the length of its contribution |
| trained on | {n_train:,} states, {epochs:g} times each, in chunks of {context} tokens |
| left out | position 0 of every chunk, and {n_massive:,} further tokens with a norm above ten times the median |
| input scale | {scale:.5f} in training (mean norm sqrt(d)), folded into the weights, which read the stream as it is |
| schedule | {steps} steps of {batch} states, Adam {learning_rate:g}, warm-up 5 %, decay over the last 20 %, AuxK 1/32 |
| seed | {seed} |
| time | {seconds:.0f} s for training on collected states, pauses left out |

## Quality on held-out text

On {n_held_out:,} states of {split}. Position 0 and massive tokens are left out.

| | |
|---|---|
| L0 | {l0:.2f} |
| explained variance, corpus variance as reference | {ev} |
| explained variance, held-out states' own variance | {ev_own} |
| cosine of x and its reconstruction | {cosine} |
| norm of the reconstruction over norm of x | {norm_ratio} |
| reconstruction bias (below 1: shrinks) | {bias} |
| corpus variance (mean squared distance from the mean, training states) | {variance:.6g} |
| latents that never fired on the {n_train:,} training states | {dead:.2%} |
| latents that fire on more than 10 % of them | {dense:.2%} |

## Text

{documents}

## When not to trust it

A small SAE of little text knows that text and little else: latents of what was rare in it are missing or blurred, and
some respond to a format rather than a meaning. Position 0 and other massive tokens were never in its training: what it
says there is meaningless. Beyond {context} tokens it is off the lengths it was trained on.
"""


@dataclass(frozen=True, eq=False)
class OwnReport:
    """Everything the card says about one training on own text. ``training_id`` tells this training from all others."""

    request: OwnRequest
    training_id: str
    facts: ModelFacts
    config: TopKConfig
    batch: int
    scale: float
    corpus_variance: float
    n_train: int
    n_held_out: int
    n_massive: int
    split: Split
    documents: tuple[str, ...]
    quality: ReconstructionQuality
    density: Float64[Tensor, "d_sae"]
    log: pd.DataFrame
    seconds: float

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.request.point - 1}.hook_resid_post"

    @property
    def dead(self) -> float:
        """Share of latents that never fired on the training states."""
        return (self.density == 0).double().mean().item()

    def numbers(self) -> dict[str, float | None]:
        """The held-out numbers that stand in the configuration; None where undefined."""
        quality = self.quality
        found = {"explained_variance": quality.explained_variance, "l0": quality.l0, "cosine": quality.cosine}
        told = {name: round(one.value, 4) if one.status == "ok" else None for name, one in found.items()}
        return told | {"dead_share": round(self.dead, 4), "n": self.n_held_out}

    @property
    def warning(self) -> str | None:
        """What is wrong with it: explained variance below .5, or more than 40 % dead latents."""
        value = self.quality.explained_variance.value
        said = [
            f"explained variance on held-out text is {value:.2f}, below {LOW_EV}" if not value >= LOW_EV else "",
            f"{self.dead:.0%} of its latents never fired, more than {MANY_DEAD:.0%}" if self.dead > MANY_DEAD else "",
        ]
        said = [part for part in said if part]
        if not said:
            return None
        return f"{WARNING}: {' and '.join(said)}; more text or epochs, or fewer latents, may help"

    @property
    def remark(self) -> str:
        return self.warning or f"own text: {self.n_train:,} tokens, {len(self.documents):,} documents, one seed"


def told(folder: Path) -> list[str]:
    """What a command says of a folder that was just made: its name and numbers, and the warning if there is one."""
    metadata = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["metadata"]
    numbers = [f"{name.replace('_', ' ')} {value}" for name, value in metadata["held_out"].items()]
    lines = ["\t".join((folder.name, *numbers, str(folder)))]
    return [*lines, str(metadata["remark"])] if str(metadata["remark"]).startswith(WARNING) else lines


def write_own(sae: TopKSAE, report: OwnReport, out: Path) -> None:
    """Write ``cfg.json``, ``sae_weights.safetensors`` (float32), ``README.md`` and the training log."""
    lens, config, facts = sae_lens(), report.config, report.facts
    metadata = lens.saes.sae.SAEMetadata(
        model_name=facts.name,
        model_weights=facts.weights,
        hook_name=report.hook_name,
        hook_head_index=None,
        prepend_bos=facts.bos_id is not None,
        context_size=CONTEXT,
        training_tokens=report.n_train,
        seed=config.seed,
        corpus_variance=report.corpus_variance,
        remark=report.remark,
        training_id=report.training_id,
        held_out=report.numbers(),
    )
    settings = lens.TopKSAEConfig(d_in=config.d_in, d_sae=config.d_sae, k=config.k, dtype="float32", metadata=metadata)
    module = lens.TopKSAE(settings)
    weights = {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    module.load_state_dict({name: weight.contiguous() for name, weight in weights.items()})
    module.save_model(out)
    (out / "README.md").write_text(_card(report), encoding="utf-8")
    report.log.round(6).to_csv(out / LOG, index=False)


def _card(report: OwnReport) -> str:
    config, quality, request = report.config, report.quality, report.request
    numbers = {
        "ev": quality.explained_variance,
        "ev_own": quality.explained_variance_own,
        "cosine": quality.cosine,
        "norm_ratio": quality.norm_ratio,
        "bias": quality.reconstruction_bias,
    }
    told = {name: f"{one.value:.4f}" if one.status == "ok" else "undefined" for name, one in numbers.items()}
    return _CARD.format(
        **told,
        name=request.name,
        remark=report.remark[0].upper() + report.remark[1:],
        model=report.facts.name,
        weights=report.facts.weights,
        hook=report.hook_name,
        point=request.point,
        d_in=config.d_in,
        d_sae=config.d_sae,
        factor=config.d_sae / config.d_in,
        k=config.k,
        steps=config.steps,
        batch=report.batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        epochs=request.epochs,
        context=CONTEXT,
        scale=report.scale,
        n_train=report.n_train,
        n_held_out=report.n_held_out,
        n_massive=report.n_massive,
        seconds=report.seconds,
        split=_SPLITS[report.split],
        l0=quality.l0.value,
        variance=report.corpus_variance,
        dead=report.dead,
        dense=(report.density > _DENSE).double().mean().item(),
        documents=_listed(report.documents),
    )


def _listed(documents: tuple[str, ...]) -> str:
    """Names people gave their files, as code, so that nothing in them is markup."""
    shown = [
        f"- `{''.join(sign if sign.isprintable() and sign != '`' else '?' for sign in name[:80])}`"
        for name in documents
    ]
    more = [f"- and {len(documents) - _LISTED:,} more"] if len(documents) > _LISTED else []
    return "Given by the person who trained it; nothing of it is in this folder.\n\n" + "\n".join(
        shown[:_LISTED] + more
    )
