"""The refusals a person may meet: each is one sentence, and each maps to one exit status of the command line."""

__all__ = ["BadRequest", "ModelRefused", "NonFinite", "PlanRefused"]


class BadRequest(ValueError):
    """The request cannot mean anything: unknown name, out of range, wrong type (exit status 2)."""


class ModelRefused(RuntimeError):
    """The model could not be loaded or failed its self-check (exit status 1)."""


class NonFinite(RuntimeError):
    """Activations became NaN or infinite (exit status 1)."""


class PlanRefused(RuntimeError):
    """The request would not fit in memory; nothing was allocated (exit status 3)."""
