"""Training of a small TopK sparse autoencoder in plain torch (Gao et al. 2024; docs/methods, SAE latents).

Reconstruction is by the ``k`` largest pre-activations of each state. Latents that have not fired for a while rebuild
the remaining error (AuxK), which revives them. Decoder rows keep unit norm, so an activation is the length of what its
latent contributes.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["LOG_COLUMNS", "TopKConfig", "TopKSAE", "TopKTrainer", "learning_rate_at", "train_topk_sae"]

LOG_COLUMNS = ("step", "learning_rate", "loss", "explained_variance", "dead_share")
_WEIGHTS = ("w_enc", "b_enc", "w_dec", "b_dec")
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class TopKConfig:
    """Width, sparsity and schedule. The defaults are those of docs/methods for short runs on a CPU.

    ``warm_up`` and ``decay`` are shares of ``steps``; a latent is dead after ``dead_after`` steps without firing.
    """

    d_in: int
    d_sae: int
    k: int
    steps: int
    learning_rate: float = 4e-4
    warm_up: float = 0.05
    decay: float = 0.2
    aux_coefficient: float = 1 / 32
    dead_after: int = 200
    clip: float = 1.0
    log_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k must lie in 1..d_sae ({self.d_sae}), not {self.k}")
        if self.d_in < 2 or self.steps < 1:
            raise ValueError(f"d_in must be at least 2 and steps at least 1, not {self.d_in} and {self.steps}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be finite and above 0, not {self.learning_rate}")

    @property
    def k_aux(self) -> int:
        """Dead latents that rebuild the error: half the input width, at most all."""
        return min(self.d_in // 2, self.d_sae)


@dataclass(frozen=True, eq=False)
class TopKSAE:
    """Weights of a TopK SAE: f = ReLU(topk((x - b_dec) W_enc + b_enc)), x_hat = f W_dec + b_dec."""

    w_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, "d_sae"]
    w_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, "d_in"]
    k: int

    def pre_activations(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return (x - self.b_dec) @ self.w_enc + self.b_enc

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return _keep_largest(self.pre_activations(x), self.k)

    def decode(self, activations: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_in"]:
        return activations @ self.w_dec + self.b_dec

    def detached(self) -> "TopKSAE":
        """The same weights, no longer part of any training."""
        w_enc, b_enc, w_dec, b_dec = (w.detach() for w in (self.w_enc, self.b_enc, self.w_dec, self.b_dec))
        return TopKSAE(w_enc, b_enc, w_dec, b_dec, self.k)

    def with_input_scale(self, scale: float) -> "TopKSAE":
        """The same SAE for inputs that were multiplied by ``scale`` before training, reading them unscaled.

        Dividing both biases suffices, since ReLU and top-k commute with a positive factor: reconstructions and
        activations come out divided by ``scale``, that is in the units of the residual stream, and rows stay unit.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and above 0, not {scale}")
        return TopKSAE(self.w_enc, self.b_enc / scale, self.w_dec, self.b_dec / scale, self.k)


class TopKTrainer:
    """Fits a TopK SAE batch by batch, and can be put down and taken up between any two.

    :meth:`tensors` and :meth:`as_json` are its whole state: restored from them and given the batches that were still to
    come, it ends with the same weights to the bit (same machine and thread count).
    """

    def __init__(self, config: TopKConfig, first: Float[Tensor, "batch d_in"]) -> None:
        """A trainer before its first step. ``first`` gives b_dec its start, the mean; it is not trained on here.

        Raises:
            ValueError: ``first`` is not finite.
        """
        if not torch.isfinite(first).all():
            raise ValueError("the first batch of activations is not finite")
        self.config = config
        self.step = 0
        self._weights = dict(zip(_WEIGHTS, _initial(config, first), strict=True))
        self._optimiser = torch.optim.Adam(self._weights.values(), lr=config.learning_rate, betas=(0.9, 0.999))
        self._silent = torch.zeros(config.d_sae, dtype=torch.int64)
        self._log: list[dict[str, float]] = []

    def update(self, x: Float[Tensor, "batch d_in"]) -> float:
        """One step of the schedule; the explained variance of its batch before the step.

        Raises:
            ValueError: the loss is not finite (the step is named).
        """
        config, step, sae = self.config, self.step, self.sae
        rate = learning_rate_at(config, step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        loss, fvu, fired = _loss(sae, x, self._silent >= config.dead_after, config)
        if not torch.isfinite(loss):
            raise ValueError(f"the training loss became {loss.item()} at step {step}")
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._weights.values(), config.clip)
        self._optimiser.step()
        with torch.no_grad():
            sae.w_dec.div_(sae.w_dec.norm(dim=1, keepdim=True))
        self._silent = torch.where(fired, 0, self._silent + 1)
        if step % config.log_every == 0 or step == config.steps - 1:
            dead = (self._silent >= config.dead_after).double().mean().item()
            values = (step, rate, loss.item(), 1.0 - fvu, dead)
            self._log.append(dict(zip(LOG_COLUMNS, values, strict=True)))
        self.step += 1
        return 1.0 - fvu

    @property
    def sae(self) -> TopKSAE:
        """The SAE as it is now; its weights go on changing with further steps."""
        return TopKSAE(**self._weights, k=self.config.k)

    @property
    def log(self) -> pd.DataFrame:
        """One row every ``log_every`` steps and one for the last: ``LOG_COLUMNS``, of the batch of that step."""
        return pd.DataFrame(self._log, columns=[*LOG_COLUMNS]).astype({"step": "int64"})

    def tensors(self) -> dict[str, Tensor]:
        """Weights, both moments of Adam, and how long each latent has been silent; not copies."""
        found = {name: weight.detach() for name, weight in self._weights.items()} | {"silent": self._silent}
        for name, weight in self._weights.items():
            moments = self._optimiser.state.get(weight, {})
            found |= {f"{name}.{moment}": moments[moment] for moment in _MOMENTS if moment in moments}
        return found

    def as_json(self) -> str:
        """The rest of its state: how many steps were made, and the log."""
        return json.dumps({"step": self.step, "log": [list(row.values()) for row in self._log]})

    @classmethod
    def restored(cls, config: TopKConfig, tensors: Mapping[str, Tensor], text: str) -> "TopKTrainer":
        """The trainer whose :meth:`tensors` and :meth:`as_json` these are.

        Raises:
            ValueError: a tensor is missing or of another shape, or the step is beyond the schedule.
        """
        trainer = cls(config, torch.zeros(1, config.d_in))
        state = json.loads(text)
        trainer.step = int(state["step"])
        if not 0 <= trainer.step <= config.steps:
            raise ValueError(f"step must lie in 0..{config.steps}, not {trainer.step}")
        trainer._log = [dict(zip(LOG_COLUMNS, row, strict=True)) for row in state["log"]]
        trainer._silent = _of_shape(tensors, "silent", trainer._silent).clone()
        for name, weight in trainer._weights.items():
            weight.data.copy_(_of_shape(tensors, name, weight))
            if trainer.step:
                moments = {moment: _of_shape(tensors, f"{name}.{moment}", weight).clone() for moment in _MOMENTS}
                trainer._optimiser.state[weight] = {"step": torch.tensor(float(trainer.step)), **moments}
        return trainer


def train_topk_sae(
    config: TopKConfig,
    batches: Iterator[Float[Tensor, "batch d_in"]],
    on_step: Callable[[int, float], None] = lambda step, explained: None,
) -> tuple[TopKSAE, pd.DataFrame]:
    """Fit a TopK SAE to ``config.steps`` batches, in one go.

    Inputs should be scaled to a mean norm of about sqrt(d_in). ``on_step`` hears the step and the explained variance of
    its batch. Returns the SAE and the trainer's log.

    Raises:
        ValueError: the first batch is not finite, or the loss becomes so (the step is named).
        StopIteration: the batches end early.
    """
    first = next(batches)
    trainer = TopKTrainer(config, first)
    for step in range(config.steps):
        on_step(step, trainer.update(first if step == 0 else next(batches)))
    return trainer.sae.detached(), trainer.log


def learning_rate_at(config: TopKConfig, step: int) -> float:
    """Linear warm-up, flat, then linear decay towards 0 over the last part."""
    warm, decay = config.warm_up * config.steps, config.decay * config.steps
    rise = (step + 1) / warm if warm > 0 else 1.0
    fall = (config.steps - step) / decay if decay > 0 else 1.0
    return config.learning_rate * min(1.0, rise, fall)


def _initial(config: TopKConfig, first: Float[Tensor, "batch d_in"]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(config.seed)
    w_dec = torch.randn(config.d_sae, config.d_in, generator=generator)
    w_dec /= w_dec.norm(dim=1, keepdim=True)
    weights = (w_dec.T.contiguous(), torch.zeros(config.d_sae), w_dec, first.mean(dim=0))
    return tuple(weight.clone().requires_grad_() for weight in weights)


def _of_shape(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    found = tensors.get(name)
    if found is None or found.shape != like.shape:
        raise ValueError(f"{name} must have the shape {list(like.shape)}")
    return found


def _loss(
    sae: TopKSAE, x: Float[Tensor, "batch d_in"], dead: Bool[Tensor, "d_sae"], config: TopKConfig
) -> tuple[Float[Tensor, ""], float, Bool[Tensor, "d_sae"]]:
    """Normalised error plus AuxK; also the batch's FVU, and which latents fired."""
    pre = sae.pre_activations(x)
    activations = _keep_largest(pre, config.k)
    spread = (x - x.mean(dim=0)).square().sum()
    error = x - sae.decode(activations)
    fvu = error.square().sum() / spread
    loss = fvu
    if n_dead := int(dead.sum()):
        k_aux = min(config.k_aux, n_dead)
        loss = loss + config.aux_coefficient * _auxiliary(pre, dead, error.detach(), sae.w_dec, k_aux)
    return loss, fvu.item(), (activations > 0).any(dim=0)


def _auxiliary(
    pre: Float[Tensor, "batch d_sae"],
    dead: Bool[Tensor, "d_sae"],
    error: Float[Tensor, "batch d_in"],
    w_dec: Float[Tensor, "d_sae d_in"],
    k: int,
) -> Float[Tensor, ""]:
    """How badly the ``k`` strongest dead latents rebuild the error, as a share of the error."""
    which = dead.nonzero()[:, 0]
    revived = _keep_largest(pre[:, which], k) @ w_dec[which]
    share: Tensor = (error - revived).square().sum() / error.square().sum()
    return share


def _keep_largest(pre: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    values, chosen = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, chosen, values.relu())
