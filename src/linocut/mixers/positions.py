r"""Positions that need no table, so that a sequence or a map may have any size, and a tile any place.

Sinusoidal positions (Vaswani et al., *Attention Is All You Need*, 2017, section 3.5) are added to tokens; rotary ones
(Su et al., *RoFormer*, 2021, https://arxiv.org/abs/2104.09864, equation 34) turn queries and keys, so that their
product depends on the distance alone. In two dimensions half of the channels tell the row and half the column.

Both take coordinates, not lengths: a tile that starts at (y, x) of an image gets there what it would get in the whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_BASE = 10_000.0


def _angles(positions: Tensor, pairs: int, base: float) -> Tensor:
    """(length, pairs): each position times frequencies base^(-i / pairs), in the dtype of the positions."""
    exponent = torch.arange(pairs, device=positions.device, dtype=positions.dtype) / pairs
    return positions[:, None] * base**-exponent


def _check_pairs(what: str, channels: int, multiple: int) -> None:
    if channels < multiple or channels % multiple:
        raise ValueError(f"{what} needs a multiple of {multiple} channels, got {channels}")


def sinusoidal(positions: Float[Tensor, " length"], channels: int, *, base: float = _BASE) -> Float[Tensor, "length c"]:
    """Sines, then cosines, of positions at geometrically spaced frequencies.

    Args:
        positions: where the tokens are; any real numbers.
        channels: of the result, a multiple of 2.
        base: the longest wavelength over 2π.

    Raises:
        ValueError: if channels is not a positive multiple of 2.

    Example:
        >>> sinusoidal(torch.tensor([0.0, 1.0]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    _check_pairs("sinusoidal", channels, 2)
    angles = _angles(positions, channels // 2, base)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid(
    height: int, width: int, *, origin: tuple[float, float] = (0.0, 0.0), dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, " length"], Float[Tensor, " length"]]:
    """Rows and columns of the pixels of a map in row-major order; `origin` is where its first pixel lies."""
    y = torch.arange(height, dtype=dtype) + origin[0]
    x = torch.arange(width, dtype=dtype) + origin[1]
    return y.repeat_interleave(width), x.repeat(height)


def sinusoidal_2d(
    height: int, width: int, channels: int, *, origin: tuple[float, float] = (0.0, 0.0), base: float = _BASE
) -> Float[Tensor, "length c"]:
    """Positions of a map's pixels in row-major order: half of the channels for the row, half for the column.

    Args:
        height: rows of the map.
        width: columns of the map.
        channels: of the result, a multiple of 4.
        origin: row and column of the first pixel in the whole image.
        base: the longest wavelength over 2π.

    Raises:
        ValueError: if channels is not a positive multiple of 4.

    Example:
        >>> whole, tile = sinusoidal_2d(4, 6, 8), sinusoidal_2d(2, 6, 8, origin=(2, 0))
        >>> torch.equal(whole[12:], tile)
        True
    """
    _check_pairs("sinusoidal_2d", channels, 4)
    y, x = grid(height, width, origin=origin)
    return torch.cat([sinusoidal(y, channels // 2, base=base), sinusoidal(x, channels // 2, base=base)], dim=-1)


def rotary(
    x: Float[Tensor, "batch length heads dim"], positions: Float[Tensor, " length"], *, base: float = _BASE
) -> Float[Tensor, "batch length heads dim"]:
    """Turn each pair (i, i + dim/2) of channels by its frequency times the position.

    Args:
        x: queries or keys.
        positions: where the tokens are; any real numbers.
        base: the longest wavelength over 2π.

    Raises:
        ValueError: if dim is not a positive multiple of 2, or there are not as many positions as tokens.
    """
    _check_pairs("rotary", x.shape[-1], 2)
    if positions.shape != (x.shape[1],):
        raise ValueError(f"rotary: positions must be ({x.shape[1]},), one a token, got {tuple(positions.shape)}")
    wide = torch.promote_types(x.dtype, torch.float32)
    angles = _angles(positions.to(wide), x.shape[-1] // 2, base)[:, None]
    sine, cosine = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


def rotary_2d(
    x: Float[Tensor, "batch length heads dim"],
    height: int,
    width: int,
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    base: float = _BASE,
) -> Float[Tensor, "batch length heads dim"]:
    """Turn the first half of the channels by the row, the second by the column, of pixels in row-major order.

    Raises:
        ValueError: if dim is not a positive multiple of 4, or the tokens are not those of the map.
    """
    _check_pairs("rotary_2d", x.shape[-1], 4)
    if x.shape[1] != height * width:
        raise ValueError(f"rotary_2d: a map of {height} x {width} has {height * width} tokens, got {x.shape[1]}")
    y_at, x_at = (at.to(x.device) for at in grid(height, width, origin=origin))
    rows, columns = x.chunk(2, dim=-1)
    return torch.cat([rotary(rows, y_at, base=base), rotary(columns, x_at, base=base)], dim=-1)
