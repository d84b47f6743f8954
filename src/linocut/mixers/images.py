"""Mixers on maps: flattening for those that see a set, scans in two or four directions for those that see an order.

Vim (Zhu et al., *Vision Mamba*, 2024, https://arxiv.org/abs/2401.09417) scans the pixels forwards and backwards;
VMamba (Liu et al., 2024, https://arxiv.org/abs/2401.10166, section 4.2) along rows and along columns, both ways.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Mixer, OrderedMixer, build, exists


class Bidirectional(Mixer):
    """A causal mixer run both ways over a sequence, each way with its own parameters: every token sees every other.

    Args:
        name: a mixer that exists with ``causal=True``.
        d_model: channels of a token.
        **options: of the mixer.

    Raises:
        ValueError: if the mixer is unknown or has no causal form.
    """

    def __init__(self, name: str, d_model: int, **options: Any) -> None:
        super().__init__(d_model)
        self.forwards = build(name, d_model, causal=True, **options)
        self.backwards = build(name, d_model, causal=True, **options)

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """The mean of both ways."""
        self.check(x)
        mixed: Tensor = (self.forwards(x) + self.backwards(x.flip(1)).flip(1)) / 2
        return mixed


class Scan2d(nn.Module):
    """A causal mixer over the pixels of a map in several orders, each with its own parameters; the mean of all.

    Args:
        name: a mixer that exists with ``causal=True``.
        channels: of the map.
        directions: 1, row by row; 2, also backwards; 4, also column by column, both ways.
        **options: of the mixer.

    Raises:
        ValueError: for another number of directions, or a mixer without a causal form.
    """

    def __init__(self, name: str, channels: int, *, directions: int = 4, **options: Any) -> None:
        if directions not in (1, 2, 4):
            raise ValueError(f"directions must be 1, 2 or 4, got {directions}")
        super().__init__()
        self.ways = nn.ModuleList(build(name, channels, causal=True, **options) for _ in range(directions))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Mix every pixel with those before it in each order."""
        mixed = [self._mix(mixer, x, turned=index >= 2, back=index % 2 == 1) for index, mixer in enumerate(self.ways)]
        return torch.stack(mixed).mean(dim=0)

    def _mix(self, mixer: nn.Module, x: Tensor, *, turned: bool, back: bool) -> Tensor:
        """One order: columns first if turned, last pixel first if back."""
        seen = x.transpose(2, 3) if turned else x
        tokens = to_tokens(seen)
        mixed = mixer(tokens.flip(1)).flip(1) if back else mixer(tokens)
        result = to_map(mixed, seen.shape[2], seen.shape[3])
        return result.transpose(2, 3) if turned else result


class ImageMixer(nn.Module):
    """Any mixer on maps of any size, by its name.

    A mixer over sets, or over the whole, takes the pixels in row-major order; one that exists only with an order scans
    in the directions asked for.

    Args:
        name: one of :func:`linocut.mixers.names`.
        channels: of the map.
        directions: of a scan; see :class:`Scan2d`.
        **options: of the mixer.

    Example:
        >>> ImageMixer("linear_attention", 8, heads=2)(torch.zeros(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    def __init__(self, name: str, channels: int, *, directions: int = 4, **options: Any) -> None:
        super().__init__()
        self.mixer = for_maps(name, channels, directions=directions, **options)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Mix the whole map."""
        return mix(self.mixer, x)


def for_maps(name: str, channels: int, *, directions: int = 4, **options: Any) -> Mixer | Scan2d:
    """The form of a mixer that a map is mixed with: without an order if it has one, else scans; for :func:`mix`.

    Raises:
        ValueError: for an unknown name, with the near ones, or what the mixer itself refuses.
    """
    if exists(name, causal=False):
        return build(name, channels, causal=False, **options)
    return Scan2d(name, channels, directions=directions, **options)


def mix(
    mixer: Mixer | Scan2d, x: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Mix a map with what :func:`for_maps` gave."""
    if isinstance(mixer, Scan2d):
        scanned: Tensor = mixer(x)
        return scanned
    return to_map(mixer(to_tokens(x)), x.shape[2], x.shape[3])


def to_tokens(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch length channels"]:
    """The pixels of a map in row-major order."""
    return x.flatten(2).transpose(1, 2)


def to_map(
    x: Float[Tensor, "batch length channels"], height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """The map whose pixels in row-major order are these tokens.

    Raises:
        ValueError: if there are not ``height * width`` of them.
    """
    if x.shape[1] != height * width:
        raise ValueError(f"to_map: {height} x {width} pixels are {height * width} tokens, got {x.shape[1]}")
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


def in_strips(mixer: OrderedMixer, x: Float[Tensor, "batch channels height width"], rows: int) -> Tensor:
    """A row-by-row scan of a map some rows at a time, the state handed on: the whole's result in a strip's memory.

    Raises:
        ValueError: if rows is below 1.
    """
    if rows < 1:
        raise ValueError(f"rows must be >= 1, got {rows}")
    state, out = mixer.init_state(x.shape[0]), torch.empty_like(x)
    for top in range(0, x.shape[2], rows):
        strip = x[:, :, top : top + rows]
        mixed, state = mixer.scan(to_tokens(strip), state)
        out[:, :, top : top + rows] = to_map(mixed, strip.shape[2], strip.shape[3])
    return out
