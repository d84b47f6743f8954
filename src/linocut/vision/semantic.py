"""Semantic segmentation: the segmenter's encoder with a dilated head, one class a pixel, images of any size.

Where the mask decoder asks "which pixels belong to what was clicked", this head asks "which of the known classes is
each pixel". It reads the encoder's features at strides 16, 8, 4 and 2:

1. atrous spatial pyramid pooling at stride 16 (:class:`~linocut.vision.aspp.ASPP`): three dilations and the mean of the
   whole image see every pixel at several scales;
2. dilated residual blocks at stride 8 carry that context to a finer grid without pooling it away;
3. two steps down to strides 4 and 2 bring back thin things.

No layer has statistics over a batch, so an image is classified as it is, whatever it came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from linocut.data.images import open_image
from linocut.vision.aspp import ASPP
from linocut.vision.dilation import DilatedConv2d
from linocut.vision.efficientnet import TRUNK_CHANNELS
from linocut.vision.encoder import EncoderConfig, ImageEncoder, normalize, require_rgb
from linocut.vision.layers import LocalBlock, TokenNorm, upsample
from linocut.vision.network import channels_last
from linocut.vision.precision import Dtype, resolve
from linocut.vision.weights import bundled_path, read_weights, write_weights

BUNDLED = "linocut-street.safetensors"
_FORMAT = "linocut-semantic-1"


@dataclass(frozen=True)
class SemanticConfig:
    """What a network for semantic segmentation is built with.

    Attributes:
        classes: names, in the order of the network's outputs.
        values: the label value that stands for each class.
        encoder: widths and the mixer of the encoder.
        channels: width of the head at strides 16 and 8.
        rates: dilations of the pyramid pooling at stride 16; all 1 for a head without dilation.
        dilations: of the residual blocks at stride 8, one block each.
        scale: images are enlarged so many times before they are encoded.

    Raises:
        ValueError: if there are fewer than two classes, names and values differ in number, a value is there twice, or
            scale is not positive.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    channels: int = 128
    rates: tuple[int, ...] = (3, 6, 12)
    dilations: tuple[int, ...] = (2, 4)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"classes must be two or more, got {list(self.classes)}")
        if len(self.values) != len(self.classes) or len(set(self.values)) != len(self.values):
            raise ValueError(
                f"values must be one label value a class, each once: got {list(self.values)} for "
                f"{len(self.classes)} classes"
            )
        if not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")


class DilatedBlock(nn.Module):
    """Token norm, dilated 3×3 convolution, ReLU, 1×1 convolution, residual.

    Args:
        channels: C.
        dilation: distance of the taps in pixels of the map, >= 1.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = TokenNorm(channels)
        self.conv = DilatedConv2d(channels, channels, 3, dilation=dilation, padding="same")
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out."""
        out: Tensor = x + self.project(functional.relu(self.conv(self.norm(x))))
        return out


class SemanticHead(nn.Module):
    """The encoder's features to one logit a class at stride 2.

    Args:
        config: widths, dilations and the number of classes.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        wide, encoder = config.channels, config.encoder
        middle, narrow = wide // 2, wide // 4
        self.context = ASPP(encoder.channels16, wide, rates=config.rates)
        self.lateral8 = nn.Conv2d(encoder.channels8, wide, 1)
        self.dilated = nn.Sequential(*(DilatedBlock(wide, dilation) for dilation in config.dilations))
        self.lateral4 = nn.Conv2d(encoder.channels4, middle, 1)
        self.down4 = nn.Conv2d(wide, middle, 1)
        self.local4 = LocalBlock(middle, kernel=5)
        self.lateral2 = nn.Conv2d(TRUNK_CHANNELS[2], narrow, 1)
        self.down2 = nn.Conv2d(middle, narrow, 1)
        self.local2 = LocalBlock(narrow, kernel=3)
        self.norm = TokenNorm(narrow)
        self.classify = nn.Conv2d(narrow, len(config.classes), 1)

    def forward(self, s16: Tensor, s8: Tensor, s4: Tensor, s2: Tensor) -> Float[Tensor, "b classes h2 w2"]:
        """Features (B, C, H / stride, W / stride) to logits at stride 2."""
        x = self.dilated(self.lateral8(s8) + upsample(self.context(s16)))
        x = self.local4(self.lateral4(s4) + upsample(self.down4(x)))
        x = self.local2(self.lateral2(s2) + upsample(self.down2(x)))
        logits: Tensor = self.classify(self.norm(x))
        return logits


class SemanticNet(nn.Module):
    """Image encoder and dilated head.

    Args:
        config: what to build.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.encoder)
        self.head = SemanticHead(config)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes h w"]:
        """Normalised images of any one size to logits of that size."""
        octave = self.encoder.encode_octave(image)
        logits = self.head(octave.stride16, octave.stride8, octave.stride4, octave.stride2).float()
        full = upsample(logits)
        return full[:, :, : image.shape[2], : image.shape[3]]

    def logits(
        self, images: UInt8[Tensor, "b h w 3"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b classes h w"]:
        """Images as they are to logits, by way of the scale the network is used at."""
        pixels, scale, sides = normalize(images), self.config.scale, images.shape[1:3]
        if scale != 1:
            size = [max(1, round(side * scale)) for side in sides]
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        logits: Tensor = self(pixels.to(dtype))
        if logits.shape[-2:] != sides:
            logits = functional.interpolate(logits, sides, mode="bilinear", align_corners=False)
        return logits


class SemanticSegmenter:
    """Gives every pixel of an image one of the known classes.

    Args:
        net: the network.
        dtype: as in :func:`linocut.vision.weights.load`.

    Example:
        >>> import numpy as np
        >>> net = SemanticNet(SemanticConfig(("sky", "road"), (0, 3)))
        >>> labels = SemanticSegmenter(net).predict(np.zeros((90, 120, 3), np.uint8))
        >>> labels.shape, labels.dtype, set(labels.ravel().tolist()) <= {0, 3}
        ((90, 120), dtype('int32'), True)
    """

    def __init__(self, net: SemanticNet, *, dtype: Dtype = "auto") -> None:
        self.config = net.config
        self.dtype = resolve(dtype)
        self.net = channels_last(net.eval()).to(self.dtype)

    @property
    def classes(self) -> dict[int, str]:
        """Names of the classes by label value."""
        return dict(zip(self.config.values, self.config.classes, strict=True))

    def logits(self, image: NDArray[np.uint8] | str | Path) -> Float[Tensor, "classes h w"]:
        """One float32 logit a class and pixel.

        Args:
            image: (H, W, 3) uint8 RGB, or a file.

        Raises:
            ValueError: if an array is not (H, W, 3) uint8.
            FileNotFoundError: if there is no such file.
        """
        array = require_rgb(open_image(image) if isinstance(image, str | Path) else image)
        with torch.inference_mode():
            return self.net.logits(torch.from_numpy(np.ascontiguousarray(array))[None], self.dtype)[0]

    def predict(self, image: NDArray[np.uint8] | str | Path) -> NDArray[np.int32]:
        """The label value of every pixel, (H, W) int32; takes and raises what :meth:`logits` does."""
        return np.asarray(np.asarray(self.config.values, np.int32)[self.classify(image)], np.int32)

    def classify(self, image: NDArray[np.uint8] | str | Path) -> NDArray[np.int64]:
        """The index of the class of every pixel, (H, W) int64; takes and raises what :meth:`logits` does."""
        return np.asarray(self.logits(image).argmax(0).numpy(), np.int64)

    def probabilities(self, image: NDArray[np.uint8] | str | Path) -> NDArray[np.float32]:
        """Softmax over the classes, (H, W, classes) float32; takes and raises what :meth:`logits` does."""
        return np.asarray(self.logits(image).softmax(0).permute(1, 2, 0).numpy(), np.float32)


def save_semantic(path: str | Path, weights: Mapping[str, Tensor], config: SemanticConfig) -> None:
    """Write a network's weights as fp16, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    write_weights(path, weights, _FORMAT, asdict(config))


def load_semantic_net(path: str | Path) -> SemanticNet:
    """Build the network a file describes, in float32.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold weights for semantic segmentation, or is damaged.
    """
    return read_weights(path, _FORMAT, lambda config: SemanticNet(_config(config)))


def load_semantic(weights: str | Path | None = None, *, dtype: Dtype = "auto") -> SemanticSegmenter:
    """Load a segmenter of classes, ready to use; raises what :func:`load_semantic_net` does.

    Args:
        weights: a file that ``linocut train --task semantic`` wrote; None takes the network for street scenes that
            ships with Linocut (CamVid's eleven classes).
        dtype: ``auto``, ``float32`` or ``bfloat16``.

    Example:
        >>> import numpy as np
        >>> model = load_semantic()
        >>> labels = model.predict(np.zeros((90, 120, 3), np.uint8))
        >>> labels.shape, model.classes[0]
        ((90, 120), 'sky')
    """
    return SemanticSegmenter(load_semantic_net(bundled_path(BUNDLED) if weights is None else weights), dtype=dtype)


def _config(raw: Mapping[str, Any]) -> SemanticConfig:
    """A configuration as a file's header holds it."""
    tuples = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    return SemanticConfig(**{**raw, **tuples, "encoder": EncoderConfig(**raw["encoder"])})
