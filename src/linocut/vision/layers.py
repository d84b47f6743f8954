"""The few layers encoder and decoder are made of; all per-token, local or a mergeable summary."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut import mixers


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
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, channels * expansion)
        self.narrow = nn.Linear(channels * expansion, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out."""
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
        self.mixer = mixers.build(mixer, channels)
        self.gain = nn.Parameter(0.1 * self.norm.weight.detach().clone())
        self.local = LocalBlock(channels, kernel=kernel)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out; linear in H·W."""
        tokens = self.norm(x.permute(0, 2, 3, 1))
        mixed = self.mixer(tokens.flatten(1, 2)).unflatten(1, x.shape[-2:])
        out: Tensor = self.local(x + (self.gain * mixed).permute(0, 3, 1, 2))
        return out


def upsample(x: Float[Tensor, "b c h w"], factor: int = 2) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear, pixel centres kept (``align_corners=False``)."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
