"""Tuned lens: an affine translator a layer, so that each residual point reads as what the model will say (core.md 4.3).

Belrose et al. 2023 (arXiv 2303.08112), parametrised as their code is: h' = h + W_l h + b_l, then the model's own final norm
and unembedding. Zero translators are the logit lens.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi

import torch
from jaxtyping import Float, Float32
from torch import Tensor

__all__ = [
    "LAYERS_AT_ONCE",
    "Coordinates",
    "Translators",
    "TunedLensConfig",
    "TunedLensTrainer",
    "kl_to_final",
    "learning_rate_at",
]

Logits = Callable[[Float32[Tensor, "rows d"]], Float32[Tensor, "rows vocab"]]
"""Final norm and unembedding, differentiable in the state."""

LAYERS_AT_ONCE = 4
"""Layers whose logits exist together: the unembedding is read from memory once for all of them."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_COORDINATES = ("centre", "scale", "shift", "size")


@dataclass(frozen=True, slots=True, eq=False)
class Translators:
    """One affine map for each point 0..L-1; point L needs none. Rows of a weight are outputs, as in ``torch.nn.Linear``."""

    weight: Float32[Tensor, "layers d d"]
    bias: Float32[Tensor, "layers d"]

    @classmethod
    def zero(cls, layers: int, d: int) -> "Translators":
        """The logit lens."""
        return cls(torch.zeros(layers, d, d), torch.zeros(layers, d))

    def translate(self, hidden: Float[Tensor, "*rows d"], layer: int) -> Float32[Tensor, "*rows d"]:
        """h + W h + b; at point L the state itself."""
        state = hidden.float()
        if layer == len(self.weight):
            return state
        return state + torch.nn.functional.linear(state, self.weight[layer], self.bias[layer])


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """What the trainer learns in: h' = h + shift + size (A x + a) with x = (h - centre) / scale, from A = 0 and a = 0.

    Adam moves every entry by about its rate whatever the units, so x and what A x is to become should be of the order of 1
    in every dimension. With ``shift`` = mean_L - mean_l it starts as the mean-corrected lens. Any choice gives the same
    family of affine maps.
    """

    centre: Float32[Tensor, "layers d"]
    scale: Float32[Tensor, "layers d"]
    shift: Float32[Tensor, "layers d"]
    size: Float32[Tensor, "layers d"]

    @classmethod
    def plain(cls, layers: int, d: int) -> "Coordinates":
        """The states as they are, starting as the logit lens."""
        zeros, ones = torch.zeros(layers, d), torch.ones(layers, d)
        return cls(zeros, ones, zeros, ones)

    @classmethod
    def of(
        cls, hidden: Float32[Tensor, "points rows d"], means: Float32[Tensor, "points d"] | None = None
    ) -> "Coordinates":
        """Of a sample of states at points 0..L, about the means (the sample's own if none are given): each dimension of a
        state by its standard deviation, of the output by that of what is still to be added to it, h_L - h_l. It starts as
        the mean-corrected lens. A dimension that stands still counts as the smallest that moves at its point."""
        means = hidden.mean(1) if means is None else means
        about = hidden - means[:, None]
        return cls(means[:-1], _spread(about[:-1]), means[-1] - means[:-1], _spread(about[-1] - about[:-1]))

    def folded(self, weight: Float32[Tensor, "layers d d"], bias: Float32[Tensor, "layers d"]) -> Translators:
        """A and a as plain translators: h' = h + W h + b."""
        plain = self.size[:, :, None] * weight / self.scale[:, None, :]
        moved = torch.einsum("lij,lj->li", plain, self.centre)
        return Translators(plain, self.shift + self.size * bias - moved)


@dataclass(frozen=True, slots=True)
class TunedLensConfig:
    """Adam at ``learning_rate``, falling to 0 along a cosine; each translator's gradient is clipped to ``clip``.

    Raises ValueError for what cannot be trained.
    """

    layers: int
    d_model: int
    steps: int
    learning_rate: float = 1e-3
    clip: float = 1.0

    def __post_init__(self) -> None:
        if min(self.layers, self.d_model, self.steps) < 1:
            raise ValueError("layers, d_model and steps must be 1 or more")
        if not (0 < self.learning_rate < 1 and self.clip > 0):
            raise ValueError(
                f"the learning rate must lie between 0 and 1, not {self.learning_rate}; clip must be positive"
            )


def learning_rate_at(config: TunedLensConfig, step: int) -> float:
    """The cosine from ``learning_rate`` at step 0 towards 0 after the last."""
    return config.learning_rate * (1 + cos(pi * step / config.steps)) / 2


@torch.no_grad()
def kl_to_final(
    logits: Float32[Tensor, "rows vocab"], final: Float32[Tensor, "rows vocab"]
) -> Float32[Tensor, " rows"]:
    """KL(p_L || p_l) in nats of each row of logits against the model's own."""
    at_end = final.log_softmax(-1)
    divergence: Tensor = (at_end.exp() * (at_end - logits.log_softmax(-1))).sum(-1)
    return divergence.clamp(min=0)


class TunedLensTrainer:
    """Trains all translators on batches of states, a few layers after the other, so that the logits of all never exist together.

    The loss is KL(p_L || p_l) at the same position. A trainer restored from :meth:`tensors` and :meth:`as_json` goes on to
    the same weights as one that was never put down.
    """

    def __init__(self, config: TunedLensConfig, coordinates: Coordinates | None = None) -> None:
        self.config = config
        self.coordinates = Coordinates.plain(config.layers, config.d_model) if coordinates is None else coordinates
        self.step = 0
        made = [
            (torch.zeros(config.d_model, config.d_model), torch.zeros(config.d_model)) for _ in range(config.layers)
        ]
        self._pairs = [tuple(part.requires_grad_() for part in pair) for pair in made]
        self._optimiser = torch.optim.Adam([part for pair in self._pairs for part in pair], lr=config.learning_rate)
        self._log: list[list[float]] = []

    def update(
        self,
        hidden: Float32[Tensor, "layers rows d"],
        final: Float32[Tensor, "rows vocab"],
        logits_of: Logits,
    ) -> Float32[Tensor, " layers"]:
        """One step; the mean KL of each layer before it. ``final`` are the model's own logits at these positions.

        Raises ValueError (naming layer and step) if a loss is not finite.
        """
        rate = learning_rate_at(self.config, self.step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        at_end = final.log_softmax(-1)
        target = at_end.exp()
        entropy = -(target * at_end).sum(-1).mean()
        self._optimiser.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for first in range(0, len(self._pairs), LAYERS_AT_ONCE):
            pairs = self._pairs[first : first + LAYERS_AT_ONCE]
            read = [self._translated(hidden[layer], layer) for layer in range(first, first + len(pairs))]
            logits = logits_of(torch.cat(read)).reshape(len(pairs), -1, final.shape[1])
            loss = -(target * logits.log_softmax(-1)).sum(-1).mean(-1) - entropy
            broken = (~torch.isfinite(loss)).nonzero().flatten().tolist()
            if broken:
                layer = broken[0]
                raise ValueError(f"the loss of layer {first + layer} became {loss[layer].item()} at step {self.step}")
            # Not backward(): the gradients of norm and unembedding are not wanted, and the model may be someone's own.
            parts = [part for pair in pairs for part in pair]
            for part, gradient in zip(parts, torch.autograd.grad(loss.sum(), parts), strict=True):
                part.grad = gradient
            for pair in pairs:
                torch.nn.utils.clip_grad_norm_(pair, self.config.clip)
            losses.append(loss.detach())
        self._optimiser.step()
        found = torch.cat(losses)
        self._log.append(found.tolist())
        self.step += 1
        return found

    def _translated(self, state: Float32[Tensor, "rows d"], layer: int) -> Float32[Tensor, "rows d"]:
        at, (weight, bias) = self.coordinates, self._pairs[layer]
        moved = torch.nn.functional.linear((state - at.centre[layer]) / at.scale[layer], weight, bias)
        read: Tensor = state + at.shift[layer] + at.size[layer] * moved
        return read

    @property
    def translators(self) -> Translators:
        """A copy of the translators as they are now."""
        weights, biases = zip(*self._pairs, strict=True)
        return self.coordinates.folded(*(torch.stack([p.detach() for p in parts]) for parts in (weights, biases)))

    @property
    def log(self) -> Float32[Tensor, "steps layers"]:
        """The mean KL of every layer at every step so far, each on its own batch."""
        return torch.tensor(self._log).reshape(-1, self.config.layers)

    def tensors(self) -> dict[str, Tensor]:
        """Its coordinates, and what it learns in them with both moments of Adam, by layer; not copies."""
        found: dict[str, Tensor] = {name: getattr(self.coordinates, name) for name in _COORDINATES}
        for name, part in self._named().items():
            found[name] = part.detach()
            state = self._optimiser.state.get(part, {})
            found |= {f"{name}.{moment}": state[moment] for moment in _MOMENTS if moment in state}
        return found

    def as_json(self) -> str:
        """The rest of its state: how many steps were made, and the log."""
        return json.dumps({"step": self.step, "log": self._log})

    @classmethod
    def restored(cls, config: TunedLensConfig, tensors: Mapping[str, Tensor], text: str) -> "TunedLensTrainer":
        """The trainer whose :meth:`tensors` and :meth:`as_json` these are.

        Raises ValueError where a tensor is missing or of another shape, or the step is beyond the schedule.
        """
        plain = Coordinates.plain(config.layers, config.d_model)
        at = Coordinates(**{name: _of_shape(tensors, name, getattr(plain, name)).clone() for name in _COORDINATES})
        trainer, state = cls(config, at), json.loads(text)
        trainer.step, trainer._log = int(state["step"]), [[float(v) for v in row] for row in state["log"]]
        if not 0 <= trainer.step <= config.steps or len(trainer._log) != trainer.step:
            raise ValueError(f"step must lie in 0..{config.steps} with a line of the log each, not {trainer.step}")
        for name, part in trainer._named().items():
            part.data.copy_(_of_shape(tensors, name, part))
            if trainer.step:
                moments = {moment: _of_shape(tensors, f"{name}.{moment}", part).clone() for moment in _MOMENTS}
                trainer._optimiser.state[part] = {"step": torch.tensor(float(trainer.step)), **moments}
        return trainer

    def _named(self) -> dict[str, Tensor]:
        names = ("weight", "bias")
        return {
            f"{i}.{name}": part for i, pair in enumerate(self._pairs) for name, part in zip(names, pair, strict=True)
        }


def _spread(about: Float32[Tensor, "layers rows d"]) -> Float32[Tensor, "layers d"]:
    found = about.square().mean(1).sqrt()
    least = found.masked_fill(found == 0, torch.inf).amin(1, keepdim=True)
    return torch.maximum(found, least.nan_to_num(posinf=1.0))


def _of_shape(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    found = tensors.get(name)
    if found is None or found.shape != like.shape:
        raise ValueError(f"{name} must have the shape {list(like.shape)}")
    return found
