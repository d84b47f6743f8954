"""Why a receptive field cannot be given; a wrong one is worse than none."""

from __future__ import annotations


class FieldError(ValueError):
    """No receptive field can be given; the message names the operation and the module that applies it."""


class GlobalOperationError(FieldError):
    """An operation reads the whole input (global pooling, attention, a statistic over the map): an infinite field."""


class UnknownOperationError(FieldError):
    """There is no rule for an operation; :func:`register_rule` adds one, ``method="probe"`` measures instead."""
