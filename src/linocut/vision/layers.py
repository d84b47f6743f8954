"""The few layers encoder and decoder are made of; all per-token, local or a mergeable summary."""

from __future__ import annotations

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut import mixers
from linocut.mixers import images
from linocut.vision.strips import in_strips, strip_rows, strips


class DepthwiseConv2d(nn.Conv2d):
    """One k×k filter a channel; padded so that stride 1 keeps the size.

    Under autocast it computes in float32: in bfloat16 the backward pass of a depthwise convolution takes longer on a
    CPU (PyTorch 2.13, oneDNN), most of all on the small maps of the trunk.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Same channels out."""
        if not (x.is_cpu and torch.is_autocast_enabled("cpu")):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class TokenNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: (B, C, H, W), no statistics over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise each pixel on its own."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class LocalBlock(nn.Module):
    """Depthwise convolution, token norm, two-layer perceptron, residual (the ConvNeXt block; Liu et al., CVPR 2022).

    Args:
        channels: C.
        kernel: odd side of the depthwise convolution.
        expansion: hidden channels of the perceptron as a multiple of C.
    """

    def __init__(self, channels: int, *, kernel: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(channels, kernel)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, channels * expansion)
        self.narrow = nn.Linear(channels * expansion, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out."""
        return in_strips(self._whole, x, channels=self.widen.out_features, halo=self.depthwise.kernel_size[0] // 2)

    def _whole(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.relu(self.widen(y), inplace=True))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class GlobalBlock(nn.Module):
    """A mixer over all pixels of a map, then a local block.

    The mixer's branch is scaled by a learnt gain per channel that starts small: global context informs the local
    features, it does not replace them.
    """

    def __init__(self, channels: int, *, mixer: str, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mixer = images.for_maps(mixer, channels)
        self.gain = nn.Parameter(0.1 * self.norm.weight.detach().clone())
        self.local = LocalBlock(channels, kernel=kernel)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out; linear in H·W."""
        rows = strip_rows(x, 6 * x.shape[1])
        if isinstance(self.mixer, mixers.SetMixer) and not torch.is_grad_enabled() and x.shape[2] > rows:
            mixed = self._mix_in_strips(self.mixer, x, rows)
        else:
            normed = images.to_map(self._tokens(x), x.shape[2], x.shape[3])
            mixed = x + self._to_map(images.to_tokens(images.mix(self.mixer, normed)), x)
        out: Tensor = self.local(mixed)
        return out

    def _mix_in_strips(self, mixer: mixers.SetMixer, x: Tensor, rows: int) -> Tensor:
        """Pass one summarises the strips and merges, pass two reads: the same result, whatever the cut."""
        pieces = list(strips(x.shape[2], rows))
        summary = reduce(mixer.merge, (mixer.summarize(self._tokens(x[:, :, p])) for p in pieces))
        out = torch.empty_like(x)
        for piece in pieces:
            part = x[:, :, piece]
            out[:, :, piece] = part + self._to_map(mixer.read(self._tokens(part), summary), part)
        return out

    def _tokens(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(x.permute(0, 2, 3, 1)).flatten(1, 2)
        return tokens

    def _to_map(self, tokens: Tensor, like: Tensor) -> Tensor:
        batch, _, height, width = like.shape
        return (self.gain * tokens).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def upsample(x: Float[Tensor, "b c h w"], factor: int = 2) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear, pixel centres kept (``align_corners=False``)."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
