"""The segmenter: encode an image once, answer prompts about it, find everything in it.

From the bottom up: ``efficientnet``, ``layers``, ``encoder`` (image to features, octave by octave), ``windows`` (where
the decoder looks), ``decoder``, ``prompts``, ``network`` (the two looks), ``masks``, ``segmenter``, ``session``,
``suppress``, ``options``, ``everything``, ``weights``, ``frames`` and ``sam`` (Segment Anything's interface).
``fields`` tells the receptive field of any module; ``dilation``, ``separable``, ``aspp``, ``context``, ``hybrid`` and
``dilated_stages`` are dilated layers and blocks; ``semantic`` gives every pixel a class. The names below
load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linocut.vision.aspp import ASPP
    from linocut.vision.dilation import DilatedConv1d, DilatedConv2d, DilatedConv3d
    from linocut.vision.fields.effective import EffectiveField, effective_receptive_field
    from linocut.vision.fields.errors import FieldError, GlobalOperationError, UnknownOperationError
    from linocut.vision.fields.receptive_field import ReceptiveField, receptive_field, register_rule

__all__ = [
    "ASPP",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedConv3d",
    "EffectiveField",
    "FieldError",
    "GlobalOperationError",
    "ReceptiveField",
    "UnknownOperationError",
    "effective_receptive_field",
    "receptive_field",
    "register_rule",
]

_HOMES = {
    "ASPP": "linocut.vision.aspp",
    "DilatedConv1d": "linocut.vision.dilation",
    "DilatedConv2d": "linocut.vision.dilation",
    "DilatedConv3d": "linocut.vision.dilation",
    "EffectiveField": "linocut.vision.fields.effective",
    "FieldError": "linocut.vision.fields.errors",
    "GlobalOperationError": "linocut.vision.fields.errors",
    "ReceptiveField": "linocut.vision.fields.receptive_field",
    "UnknownOperationError": "linocut.vision.fields.errors",
    "effective_receptive_field": "linocut.vision.fields.effective",
    "receptive_field": "linocut.vision.fields.receptive_field",
    "register_rule": "linocut.vision.fields.receptive_field",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562).

    Args:
        name: the attribute that the package does not have yet.

    Returns:
        The public object.

    Raises:
        AttributeError: if the package exports no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'linocut.vision' has no attribute {name!r}; it exports {', '.join(__all__)}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what the package holds and what it would load."""
    return sorted({*globals(), *__all__})
