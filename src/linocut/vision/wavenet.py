r"""WaveNet's stack of causal convolutions whose dilation doubles from layer to layer.

Van den Oord et al., *WaveNet: A Generative Model for Raw Audio*, 2016, https://arxiv.org/abs/1609.03499, sections 2.1
(dilations 1, 2, 4, … 512, again and again), 2.3 (gated units, equation 2) and 2.4 (residual and skip connections):

.. math::
    z = \tanh(W_f * x) \odot \sigma(W_g * x), \qquad x \leftarrow x + R z, \qquad s \leftarrow s + S z

With K taps a cycle of L layers reaches (K - 1)(2^L - 1) tokens back, at the cost of L layers. Conditioning and the
output layers are not part of the stack.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.dilation import DilatedConv1d, per_axis


class GatedUnit(nn.Module):
    """One layer: a gated causal convolution, its residual and its skip output.

    Args:
        channels: of the residual path.
        skip_channels: of the skip output.
        kernel_size: taps.
        dilation: their distance.
    """

    def __init__(self, channels: int, skip_channels: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.gated = DilatedConv1d(channels, 2 * channels, kernel_size, dilation=dilation, causal=True)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skip_channels, 1)

    def forward(
        self, x: Float[Tensor, "batch channels length"]
    ) -> tuple[Float[Tensor, "batch channels length"], Float[Tensor, "batch skip length"]]:
        """The input of the next layer, and what goes to the output."""
        signal, gate = self.gated(x).chunk(2, dim=1)
        z = torch.tanh(signal) * torch.sigmoid(gate)
        return x + self.residual(z), self.skip(z)


class WaveNetStack(nn.Module):
    """Cycles of gated units with dilations 1, 2, 4, …; the sum of their skip outputs.

    Args:
        channels: of the input and the residual path.
        skip_channels: of the output.
        layers: L, of a cycle: dilations 1 to 2^(L - 1).
        cycles: how often they are run through.
        kernel_size: taps K, two in the paper.

    Attributes:
        receptive_field: inputs that an output sees, itself among them: 1 + cycles (K - 1)(2^L - 1).

    Raises:
        ValueError: if a number is below 1.

    Example:
        >>> stack = WaveNetStack(4, 6, layers=10, cycles=1)
        >>> stack(torch.zeros(1, 4, 50)).shape, stack.receptive_field
        (torch.Size([1, 6, 50]), 1024)
    """

    def __init__(
        self, channels: int, skip_channels: int, *, layers: int = 10, cycles: int = 3, kernel_size: int = 2
    ) -> None:
        super().__init__()
        per_axis("layers", layers, 1)
        per_axis("cycles", cycles, 1)
        self.layers = nn.ModuleList(
            GatedUnit(channels, skip_channels, kernel_size=kernel_size, dilation=2**layer)
            for _ in range(cycles)
            for layer in range(layers)
        )
        self.receptive_field = 1 + cycles * (kernel_size - 1) * (2**layers - 1)

    def forward(self, x: Float[Tensor, "batch channels length"]) -> Float[Tensor, "batch skip length"]:
        """One output a token, from itself and those before it."""
        first, *others = self.layers
        x, total = first(x)
        for layer in others:
            x, skip = layer(x)
            total = total + skip
        return cast("Tensor", total)
