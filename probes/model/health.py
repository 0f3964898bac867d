"""The self-check at load, shown as model health: a model whose numbers we would get wrong is refused.

Each check compares what a capture says with an independent reference on a short built-in text (docs/methods, decision 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.model.attention import ATTENTION_NAME, Recorder, recording
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.progress import Progress

__all__ = ["Check", "check_health", "relative_error"]

PARITY = 1e-5
LOOSE = 1e-3
PROBE_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Check:
    """One line of model health: what was compared, the figure, its bound, and a sentence for people."""

    name: str
    value: float
    bound: float
    passed: bool
    says: str


def relative_error(found: Float[Tensor, "tokens d"], reference: Float[Tensor, "tokens d"]) -> float:
    """``max over tokens of |found - reference| / |reference|`` with norms over each token's vector."""
    found, reference = found.double(), reference.double()
    return float(((found - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(1e-30)).max())


@torch.no_grad()
def check_health(model: LoadedModel) -> tuple[Check, ...]:
    """Run every check; the caller decides what to do with one that failed.

    Bounds hold for float32; float16 and bfloat16 models are compared at their own precision.
    """
    bound = {torch.float32: PARITY, torch.float16: 2e-2, torch.bfloat16: 1e-1}[model.dtype]
    facts = model.facts
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in model.hf.parameters())
    checks = [_yes_no("finite weights", finite, "every weight is finite", "some weights are NaN or infinite")]
    if not finite:
        return tuple(checks)

    length = min(PROBE_TOKENS, facts.context)
    ids = torch.arange(7, 7 + 31 * length, 31, dtype=torch.long) % facts.d_vocab
    recorder = Recorder(model.sites.attention_blocks)
    with model.lock, recording(recorder):
        logits = model.hf(input_ids=ids[None].to(model.device), use_cache=False).logits[0].float().cpu()
    once = [recorder.calls.get(block, 0) for block in range(facts.n_layers)]
    checks.append(
        _yes_no(
            "attention function",
            once == [1] * facts.n_layers,
            f"our attention function ran once in each of {facts.n_layers} blocks",
            f"our attention function ran {sum(once)} times for {facts.n_layers} blocks: this architecture does not use it",
        )
    )
    if not checks[-1].passed:
        return tuple(checks)

    reference, states = _eager(model, ids)
    kept = forward(model, ids, frozenset({"resid", "mlp_out", "head_z"}), frozenset(), Progress())
    checks.append(_within("logits", relative_error(logits, reference), bound, "logits against an eager reference"))
    points = max(relative_error(kept[f"resid.{p}"], states[p]) for p in range(facts.n_layers))
    checks.append(_within("residual points", points, bound, "residual points against hidden states, l < L"))
    last = relative_error(model.normalise(kept[f"resid.{facts.n_layers}"]).float().cpu(), states[-1])
    checks.append(_within("last point", last, bound, "the final norm of the last point against the last hidden state"))
    unembedded = relative_error(model.unembed(kept[f"resid.{facts.n_layers}"]).cpu(), logits)
    checks.append(_within("unembedding", unembedded, bound, "the lens at the last point against the model's logits"))
    checks.append(
        _within(
            "components", _components(model, kept, ids), max(bound, 1e-4), "attention + MLP against the block's update"
        )
    )
    with model.lock:
        bridged = model.bridge(ids[None].to(model.device), return_type="logits")[0].float().cpu()
    checks.append(
        _within(
            "bridge",
            relative_error(bridged, reference),
            max(bound, LOOSE),
            "TransformerBridge logits against plain logits",
        )
    )
    return tuple(checks)


def _eager(model: LoadedModel, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and hidden states of the same weights with transformers' own eager attention."""
    with model.lock:
        model.hf.set_attn_implementation("eager")
        try:
            out = model.hf(input_ids=ids[None].to(model.device), use_cache=False, output_hidden_states=True)
        finally:
            model.hf.set_attn_implementation(ATTENTION_NAME)
    return out.logits[0].float().cpu(), [state[0].float().cpu() for state in out.hidden_states]


def _components(model: LoadedModel, kept: dict[str, Tensor], ids: Tensor) -> float:
    """Worst error over blocks of attention + MLP (seen on a replay of the block) against the block's update."""
    from probes.model.replay import replay

    worst = 0.0
    for block in range(model.facts.n_layers):
        start, end = kept[f"resid.{block}"], kept[f"resid.{block + 1}"]
        again = replay(model, ids, block, start, ())
        scale = torch.maximum(start.norm(dim=-1), end.norm(dim=-1))
        error = (start + again.attn_out + again.mlp_out - end).norm(dim=-1) / scale.clamp_min(1e-30)
        worst = max(worst, float(error.max()))
    return worst


def _within(name: str, value: float, bound: float, what: str) -> Check:
    passed = value <= bound
    return Check(name, value, bound, passed, f"{what}: {value:.1e}, allowed {bound:.0e}")


def _yes_no(name: str, passed: bool, good: str, bad: str) -> Check:
    return Check(name, 0.0 if passed else 1.0, 0.0, passed, good if passed else bad)
