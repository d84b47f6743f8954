"""Linear-time token mixers as modules, and the registry that builds them by name.

Example:
    >>> from linocut import mixers
    >>> mixers.names()
    ['linear_attention']
    >>> mixer = mixers.build("linear_attention", 32, heads=2)
"""

from linocut.mixers.base import SetMixer, build, names, register
from linocut.mixers.linear_attention import LinearAttention

__all__ = ["LinearAttention", "SetMixer", "build", "names", "register"]
