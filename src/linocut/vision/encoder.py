"""The image encoder: an image of any size to features at strides 2, 4, 8 and 16, octave by octave.

The image is halved again and again until its long side is at most :data:`BASE` pixels; the same weights encode every
*octave* of this pyramid. An object that is four times larger in a photograph four times larger therefore has the same
features, two octaves up, and the whole pyramid costs 4/3 of its first level. Inside an octave:

1. EfficientNet-Lite0 (local) gives features at strides 2 to 32;
2. a top-down pyramid brings the coarse features down to strides 16, 8 and 4;
3. at strides 16 and 8 a linear-time mixer adds global context.

Every operation is local, per-token or a mergeable summary, so the cost is linear in the number of pixels and a tiled
run can equal the whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from linocut.vision.efficientnet import TRUNK_CHANNELS, EfficientNetLite0
from linocut.vision.layers import GlobalBlock, LocalBlock, TokenNorm, upsample
from linocut.vision.strips import in_strips, overwrite

BASE = 256
"""Side in pixels of the decoder's window; the coarsest octave fits into one."""

MULTIPLE = 32
"""Every octave is padded with zeros (the mean colour) to a multiple of this."""


@dataclass(frozen=True)
class Octave:
    """Features of one level of the pyramid; a batch of images of one size.

    Attributes:
        pixels: (B, 3, H, W) the normalised image of this octave, padded.
        stride2: (B, 16, H/2, W/2) from the stem, for the finest look.
        stride4: (B, C4, H/4, W/4).
        stride8: (B, C8, H/8, W/8).
        stride16: (B, C16, H/16, W/16).
    """

    pixels: Tensor
    stride2: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor


@dataclass(frozen=True)
class Embedding:
    """What the encoder knows of an image; computed once, read by every prompt.

    Attributes:
        octaves: octave ``o`` describes the image at 1 / 2**o of its size.
        size: (height, width) of the original image in pixels.
    """

    octaves: tuple[Octave, ...]
    size: tuple[int, int]


def octave_count(height: int, width: int) -> int:
    """How many octaves an image has: the last one's long side is at most :data:`BASE`."""
    count = 1
    while max(height, width) > BASE << (count - 1):
        count += 1
    return count


@dataclass(frozen=True)
class EncoderConfig:
    """Widths of the pyramid and the mixer's name."""

    mixer: str = "linear_attention"
    channels16: int = 128
    channels8: int = 64
    channels4: int = 32
    blocks16: int = 2


class ImageEncoder(nn.Module):
    """EfficientNet-Lite0, a top-down pyramid and linear-time global mixing.

    Args:
        config: widths and the mixer.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        c16, c8, c4 = config.channels16, config.channels8, config.channels4
        self.trunk = EfficientNetLite0()
        self.norms = nn.ModuleDict({str(stride): TokenNorm(channels) for stride, channels in TRUNK_CHANNELS.items()})
        self.lateral32 = nn.Conv2d(TRUNK_CHANNELS[32], c16, 1)
        self.lateral16 = nn.Conv2d(TRUNK_CHANNELS[16], c16, 1)
        self.lateral8 = nn.Conv2d(TRUNK_CHANNELS[8], c8, 1)
        self.lateral4 = nn.Conv2d(TRUNK_CHANNELS[4], c4, 1)
        self.down8 = nn.Conv2d(c16, c8, 1)
        self.down4 = nn.Conv2d(c8, c4, 1)
        self.mix16 = nn.Sequential(*(GlobalBlock(c16, mixer=config.mixer, kernel=5) for _ in range(config.blocks16)))
        self.mix8 = GlobalBlock(c8, mixer=config.mixer, kernel=5)
        self.local4 = LocalBlock(c4, kernel=3)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> tuple[Octave, ...]:
        """Encode a batch of normalised images of one size, all octaves."""
        octaves = []
        for level in range(octave_count(*image.shape[-2:])):
            if level:
                image = functional.avg_pool2d(image, 2, ceil_mode=True)
            octaves.append(self.encode_octave(image))
        return tuple(octaves)

    def encode_octave(self, image: Float[Tensor, "batch 3 height width"]) -> Octave:
        """Encode one level of the pyramid; the image may have any size."""
        height, width = image.shape[-2:]
        right, below = -width % MULTIPLE, -height % MULTIPLE
        pixels = functional.pad(image, (0, right, 0, below)) if right or below else image
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        raw = self.trunk(pixels)
        c32 = self.lateral32(self.norms["32"](raw[32]))
        p16 = self.mix16(in_strips(partial(self._join, 16), raw[16], c32, channels=c32.shape[1], halo=2))
        c16 = self.down8(p16)
        p8 = self.mix8(in_strips(partial(self._join, 8), raw[8], c16, channels=c16.shape[1], halo=2))
        c8 = self.down4(p8)
        p4 = in_strips(self._finish, raw[4], c8, channels=2 * c8.shape[1], halo=4)
        return Octave(pixels, overwrite(self.norms["2"], raw[2]), p4, p8, p16)

    def _join(self, stride: int, fine: Tensor, coarse: Tensor) -> Tensor:
        """The trunk's features of one stride, and those of twice the stride laid over them."""
        lateral = {16: self.lateral16, 8: self.lateral8, 4: self.lateral4}[stride]
        joined: Tensor = lateral(self.norms[str(stride)](fine)).add_(upsample(coarse))
        return joined

    def _finish(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """The features of stride 4."""
        out: Tensor = self.local4(self._join(4, fine, coarse))
        return out


def normalize(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (B, H, W, 3) to (B, 3, H, W) around zero, as the trunk was trained: (value − 127) / 128."""
    return image.to(dtype).sub_(127.0).div_(128.0).permute(0, 3, 1, 2)


def require_rgb(image: object) -> NDArray[np.uint8]:
    """An image as the networks of this package take it, or an error that says what would make one.

    Raises:
        ValueError: if it is not (H, W, 3) uint8, or has no pixels.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(
            f"encode takes a non-empty (H, W, 3) uint8 RGB image, got shape {array.shape} and dtype {array.dtype}; "
            "linocut.open_image makes one of files, grey, 16-bit and float images"
        )
    return array
