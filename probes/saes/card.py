"""Writing a trained SAE down: a folder in SAELens' format, with a card a person can read."""

import math
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaxtyping import Float64
from torch import Tensor

from analysis.sae_metrics import ReconstructionQuality
from analysis.topk_sae import TopKConfig, TopKSAE
from probes.model.loaded import ModelFacts
from probes.saes.corpus import SOURCES
from probes.saes.folder import sae_lens
from probes.saes.quality import SAEQuality

__all__ = ["Report", "write_card", "write_folder"]

_DENSE = 0.1
_REMARK = "a small one: {n_train:,} tokens of {n_packages} packages, one seed"
_SUFFIX = re.compile(r"(\.tar\.gz|-py3-none-any\.whl)$")

_CARD = """# {name}

**{remark}.** A TopK sparse autoencoder for the residual stream of `{model}` ({weights}) at
`{hook}` (point {point}).

Made by `python -m probes.saes.train`; the format is SAELens' (`sae_lens.SAE.load_from_disk`).

| | |
|---|---|
| width | {d_sae} latents ({factor:g} x {d_in}), k = {k} |
| stored as | half precision; decoder rows have unit norm, so an activation is the length of its contribution |
| trained on | {n_train:,} tokens, {epochs:g} times each, in chunks of {context} tokens that begin with BOS |
| precision of the model | {products} matrix products for the states of training, float32 for those of held-out documents |
| left out | position 0 of every chunk, and {n_massive:,} further tokens with a norm above ten times the median |
| input scale | {scale:.5f} in training (mean norm sqrt(d)), folded into the weights, which read the stream as it is |
| schedule | {steps} steps of 1,024 states, Adam {learning_rate:g}, warm-up 5 %, decay over the last 20 %, AuxK 1/32 |
| seed | {seed} |
| time | {training:.0f} s for training on collected states, on two CPU cores shared with other work |

## Quality on held-out documents

Measured on the file as stored, on {n_held_out:,} states of documents of which nothing was trained on; position 0 and
massive tokens are left out: with them the number against their own variance would read close to 1 whatever happens
elsewhere, and the one against the corpus would be far below 0.

| | |
|---|---|
| L0 | {l0:.2f} |
| explained variance, corpus variance as reference | {ev:.4f} |
| explained variance, held-out states' own variance | {ev_own:.4f} |
| cosine of x and its reconstruction | {cosine:.4f} |
| norm of the reconstruction over norm of x | {norm_ratio:.4f} |
| reconstruction bias (below 1: shrinks) | {bias:.4f} |
| corpus variance (mean squared distance from the mean, training states) | {variance:.1f} |
| loss recovered against zero ablation | {recovered_zero} |
| loss recovered against mean ablation | {recovered_mean} |
| loss added, nats (clean {ce_clean:.3f}) | {delta_ce:.4f} |
| KL (clean to replaced), nats | {kl:.4f} |
| latents that never fired on the {n_train:,} training states | {dead:.2%} |
| latents that fire on more than 10 % of them | {dense:.2%} |

{by_source}

Losses are over {n_loss:,} predictions of a sample of these documents; the state is replaced at every token but position 0 and
massive ones.

## Text

Fetched by name and checked by sha256 (`corpus-requirements.txt`); nothing of it is in this folder but the excerpts
of `index/`, each under its text's licence.

| source | text | package | licence of the text |
|---|---|---|---|
{sources}

A document is an article, a book, a play, a speech or a manual page, or twenty short entries together; long ones are cut, so
that none outweighs the others. Every twelfth of a source is held out whole, and text that came before is left out. The weights
are released under the licence of the project (Apache-2.0), as are those of the model they were made from.

## When not to trust it

It has seen little text for an SAE, and one language; chat is rare in it. Latents of rare topics are missing or blurred, some
latents respond to a single source's format, and position 0 and other massive tokens were never in its training: what it says
there is meaningless. Beyond {context} tokens it is off the lengths it was trained on.
"""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything the card says about one training run."""

    facts: ModelFacts
    point: int
    config: TopKConfig
    context: int
    epochs: float
    scale: float
    corpus_variance: float
    n_train: int
    n_held_out: int
    n_massive: int
    quality: ReconstructionQuality
    by_source: dict[str, tuple[float, int]]
    density: Float64[Tensor, "d_sae"]
    log: pd.DataFrame
    seconds_training: float
    products: str = "float32"

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.point - 1}.hook_resid_post"


def write_folder(sae: TopKSAE, report: Report, out: Path) -> None:
    """Write ``cfg.json``, ``sae_weights.safetensors`` (half precision) and ``training_log.csv``."""
    lens, config, facts = sae_lens(), report.config, report.facts
    metadata = lens.saes.sae.SAEMetadata(
        model_name=facts.name,
        model_weights=facts.weights,
        hook_name=report.hook_name,
        hook_head_index=None,
        prepend_bos=facts.bos_id is not None,
        context_size=report.context,
        training_tokens=report.n_train,
        seed=config.seed,
        corpus_variance=report.corpus_variance,
        remark=_remark(report),
    )
    settings = lens.TopKSAEConfig(d_in=config.d_in, d_sae=config.d_sae, k=config.k, dtype="float16", metadata=metadata)
    module = lens.TopKSAE(settings)
    weights = {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    module.load_state_dict({name: weight.half().contiguous() for name, weight in weights.items()})
    module.save_model(out)
    report.log.round(6).to_csv(out / "training_log.csv", index=False)


def write_card(report: Report, checked: SAEQuality, out: Path) -> None:
    """Write ``README.md``; ``checked`` is the quality of the folder's SAE on a sample of the held-out documents."""
    (out / "README.md").write_text(_card(report, checked, out.name), encoding="utf-8")


def _card(report: Report, checked: SAEQuality, name: str) -> str:
    config, quality = report.config, report.quality
    by_source = ", ".join(f"{source} {value:.3f} (n = {n:,})" for source, (value, n) in report.by_source.items())
    return _CARD.format(
        name=name,
        remark=_remark(report).capitalize(),
        model=report.facts.name,
        weights=report.facts.weights,
        hook=report.hook_name,
        point=report.point,
        d_in=config.d_in,
        d_sae=config.d_sae,
        factor=config.d_sae / config.d_in,
        k=config.k,
        steps=config.steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        epochs=report.epochs,
        context=report.context,
        scale=report.scale,
        n_train=report.n_train,
        n_held_out=report.n_held_out,
        n_massive=report.n_massive,
        products=report.products,
        training=report.seconds_training,
        l0=quality.l0.value,
        ev=quality.explained_variance.value,
        ev_own=quality.explained_variance_own.value,
        cosine=quality.cosine.value,
        norm_ratio=quality.norm_ratio.value,
        bias=quality.reconstruction_bias.value,
        variance=report.corpus_variance,
        recovered_zero=_said(checked.value("ce_recovered_zero")),
        recovered_mean=_said(checked.value("ce_recovered_mean")),
        ce_clean=checked.value("ce_clean"),
        delta_ce=checked.value("delta_ce"),
        kl=checked.value("kl"),
        n_loss=next(row["n_used"] for row in checked.rows if row["metric"] == "kl"),
        dead=(report.density == 0).double().mean().item(),
        dense=(report.density > _DENSE).double().mean().item(),
        by_source=textwrap.fill(f"Explained variance by source: {by_source}.", 120),
        sources="\n".join(
            f"| {source.kind} | {source.contents} | {_SUFFIX.sub('', source.package)} | {source.licence} |"
            for source in SOURCES
        ),
    )


def _said(recovered: float) -> str:
    return f"{recovered:.4f}" if math.isfinite(recovered) else "not defined: the ablation costs less than 0.01 nats"


def _remark(report: Report) -> str:
    return _REMARK.format(n_train=report.n_train, n_packages=len({source.package for source in SOURCES}))
