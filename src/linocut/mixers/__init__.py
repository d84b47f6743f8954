"""Linear-time token mixers as modules, and the registry that builds them by name.

Example:
    >>> from linocut import mixers
    >>> "linear_attention" in mixers.names()
    True
    >>> mixer = mixers.build("linear_attention", 32, causal=False, heads=2)
"""

from linocut.mixers.base import (
    Info,
    LocalMixer,
    Mixer,
    OrderedMixer,
    SetMixer,
    build,
    classes,
    exists,
    names,
    register,
    table,
)
from linocut.mixers.efficient_attention import EfficientAttention
from linocut.mixers.images import Bidirectional, ImageMixer, Scan2d
from linocut.mixers.linear_attention import LinearAttention
from linocut.mixers.lru import LRU
from linocut.mixers.s4d import S4D

__all__ = [
    "LRU",
    "S4D",
    "Bidirectional",
    "EfficientAttention",
    "ImageMixer",
    "Info",
    "LinearAttention",
    "LocalMixer",
    "Mixer",
    "OrderedMixer",
    "Scan2d",
    "SetMixer",
    "build",
    "classes",
    "exists",
    "names",
    "register",
    "table",
]
