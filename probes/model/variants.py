"""Variants of a model, made when it is loaded: the same network with its weights rounded in place."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from analysis.quantise import Rounded, pooled_error, quantise, round_to
from probes.errors import ModelRefused
from probes.memory import release
from probes.model.catalog import VARIANTS
from probes.model.sites import Sites, linear_weight

__all__ = ["Change", "change_weights", "variant_label"]

_BITS = {"int8": 8, "int4": 4}
_FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_QUANTISED = re.compile(r"quanti[sz]ed|\bi?q\d|\bu?int[2-8]\b|\bnf4\b|\bfp[48]\b|\bgptq\b|\bawq\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Change:
    """What rounding did to a model's weights: relative Frobenius errors of all changed tensors and of the worst one."""

    error: float
    worst: float
    worst_name: str


@torch.no_grad()
def change_weights(hf: PreTrainedModel, sites: Sites, variant: str, name: str) -> Change:
    """Round the weights of ``hf`` in place, one tensor at a time.

    ``int8`` and ``int4`` change the linear maps inside the blocks; embeddings, unembedding, norms and biases stay.
    ``bf16`` and ``fp16`` change every parameter. What shares the memory of a parameter sees the change; what was copied
    from it does not. Raises ModelRefused where a weight cannot be rounded.
    """
    made: list[Rounded] = []
    worst, worst_name = 0.0, ""
    for label, tensor in _tensors(hf, sites, variant).items():
        try:
            part = quantise(tensor, _BITS[variant]) if variant in _BITS else round_to(tensor, _FLOATS[variant])
        except ValueError as error:
            raise ModelRefused(f"{name} cannot be made: in {label} {error}.") from None
        tensor.copy_(part.values)
        made.append(Rounded(part.values.new_empty(0), part.squared_loss, part.squared_norm))
        release()
        if not worst_name or part.error > worst:
            worst, worst_name = part.error, label
    return Change(pooled_error(made), worst, worst_name)


def variant_label(weights: str | None, variant: str, change: Change) -> str:
    """How the weights are stored, as people see it: what they were, what was done to them, and the measured error.

    The one place that decides what counts as quantised before: a label (of ``eigenscope.json``) that says so or names
    a quantised format such as Q4_1, int8, NF4, GPTQ or AWQ.
    """
    done = VARIANTS[variant]
    if weights is not None and _QUANTISED.search(weights) and variant in _BITS:
        done = f"re-quantised to {done}"
    said = f"{done}, weight error {_percent(change.error)} (worst matrix {_percent(change.worst)})"
    return said if weights is None else f"{weights}; {said}"


def _tensors(hf: PreTrainedModel, sites: Sites, variant: str) -> dict[str, torch.Tensor]:
    """The tensors a variant changes, each once though several roles may name it, as views of the parameters."""
    if variant in _FLOATS:
        return {name: parameter.detach() for name, parameter in hf.named_parameters()}
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for block, parts in enumerate(sites.blocks):
        for role, module in parts.matrices.items():
            if id(module) not in seen:
                seen.add(id(module))
                found[f"block {block} {role}"] = linear_weight(module)
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
