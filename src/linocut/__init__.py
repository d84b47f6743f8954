"""Segment anything in images of any size, in linear time, on the machine you have.

The names below and the rooms, such as `linocut.mixers`, load on first use, so `import linocut` costs milliseconds and
pulls in neither PyTorch nor OpenCV.

Example:
    >>> import linocut
    >>> linocut.__version__
    '0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linocut import agents as agents
    from linocut import data as data
    from linocut import engine as engine
    from linocut import metrics as metrics
    from linocut import mixers as mixers
    from linocut import ops as ops
    from linocut import vision as vision
    from linocut.data.images import open_image
    from linocut.vision.sam import SamPredictor, sam_model_registry
    from linocut.vision.sam_generator import SamAutomaticMaskGenerator
    from linocut.vision.segmenter import Segmenter
    from linocut.vision.weights import load

__version__ = "0.1.0"
__all__ = [
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "Segmenter",
    "__version__",
    "load",
    "open_image",
    "sam_model_registry",
]

_HOMES = {
    "SamAutomaticMaskGenerator": "linocut.vision.sam_generator",
    "SamPredictor": "linocut.vision.sam",
    "Segmenter": "linocut.vision.segmenter",
    "load": "linocut.vision.weights",
    "open_image": "linocut.data.images",
    "sam_model_registry": "linocut.vision.sam",
}
_ROOMS = ("agents", "data", "engine", "metrics", "mixers", "ops", "vision")


def __getattr__(name: str) -> object:
    """Import a public name or a room when it is first asked for (PEP 562).

    Args:
        name: the attribute that the module does not have yet.

    Returns:
        The public object; it is kept in the module, so the second look-up is an ordinary one.

    Raises:
        AttributeError: if the package exports no such name.
    """
    if name in _ROOMS:
        return import_module(f"linocut.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'linocut' has no attribute {name!r}; it exports {', '.join((*__all__, *_ROOMS))}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what the module holds and what it would load."""
    return sorted({*globals(), *__all__, *_ROOMS})
