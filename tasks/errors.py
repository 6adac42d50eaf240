"""Errors of evaluations. Imports no torch, so that pools of workers know them without it."""


class NonFiniteError(ValueError):
    """A candidate gives NaN or infinity. This is recorded as a failure of kind "non_finite", never as a score."""


class NonFiniteOutput(NonFiniteError):
    """The output of a model, a gradient or a reward is NaN or infinite."""
