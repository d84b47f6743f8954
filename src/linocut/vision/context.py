r"""The context module: eight layers whose dilation grows, so that 67 × 67 pixels are seen at full resolution.

Yu and Koltun, *Multi-Scale Context Aggregation by Dilated Convolutions*, ICLR 2016, https://arxiv.org/abs/1511.07122,
table 1 and equations 4 and 5. Layers 1 to 7 are 3×3 with dilations 1, 1, 2, 4, 8, 16, 1, each followed by max(·, 0);
layer 8 is 1×1. Channels of the basic form are C throughout, of the large one 2C, 2C, 4C, 8C, 16C, 32C, 32C, C.

Weights start as the identity, since random ones did not train (section 3). With c_i channels into layer i and c_{i+1}
out of it:

.. math::
    k^b(t, a) = \frac{C}{c_{i+1}} \quad\text{if } t = 0 \text{ and }
    \Big\lfloor \frac{a\,C}{c_i} \Big\rfloor = \Big\lfloor \frac{b\,C}{c_{i+1}} \Big\rfloor,
    \qquad \epsilon \sim \mathcal N(0, \sigma^2) \text{ otherwise}

which for the basic form is 1 on the diagonal. With σ = 0 the module gives back any map that is not negative.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.dilation import DilatedConv2d

DILATIONS = (1, 1, 2, 4, 8, 16, 1, 1)
"""Of the eight layers; the last is 1×1."""

_WIDTHS = {"basic": (1,) * 8, "large": (2, 2, 4, 8, 16, 32, 32, 1)}


class ContextModule(nn.Module):
    """Yu and Koltun's context module.

    Args:
        channels: C, of input and output.
        form: "basic" or "large".
        noise: σ of the identity's noise, far below C / c_{i+1}.

    Attributes:
        halo: pixels that a tile needs around it.

    Raises:
        ValueError: for another form.

    Example:
        >>> x = torch.rand(1, 3, 20, 30)
        >>> torch.equal(ContextModule(3, noise=0.0)(x), x)
        True
    """

    def __init__(self, channels: int, *, form: str = "basic", noise: float = 0.0) -> None:
        super().__init__()
        if form not in _WIDTHS:
            raise ValueError(f"form must be 'basic' or 'large', got {form!r}")
        widths = [channels, *(channels * factor for factor in _WIDTHS[form])]
        kernels = [3] * 7 + [1]
        self.layers = nn.ModuleList(
            DilatedConv2d(c_in, c_out, kernel, dilation=dilation)
            for (c_in, c_out), kernel, dilation in zip(pairwise(widths), kernels, DILATIONS, strict=True)
        )
        self.halo = sum(DILATIONS[:7])
        for layer in self.layers:
            _start_as_identity(layer, channels, noise)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Same shape out."""
        *inner, last = self.layers
        for layer in inner:
            x = torch.relu(layer(x))
        out: Tensor = last(x)
        return out


@torch.no_grad()
def _start_as_identity(layer: nn.Module, channels: int, noise: float) -> None:
    """Equation 5 of the paper; equation 4 is the case of equal widths."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    c_out, c_in, height, width = weight.shape
    nn.init.zeros_(bias)
    nn.init.normal_(weight, std=noise)
    from_ = torch.arange(c_in) * channels // c_in
    to = torch.arange(c_out) * channels // c_out
    same = to[:, None] == from_[None, :]
    weight[:, :, height // 2, width // 2][same] = channels / c_out
