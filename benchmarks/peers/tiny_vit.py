"""MobileSAM's image encoder: TinyViT-5M at 1024², its last stage kept at stride 16, with SAM's neck.

Written from the published shapes, for timing; it loads no checkpoint. Layout (batch, channels, height, width) between
blocks and (windows, tokens, channels) inside attention.

    stem     3 → 64 channels, stride 4
    stage 1  2 × MBConv 64, expansion 4          256²
    stage 2  2 × window attention 128, window 7   128²
    stage 3  6 × window attention 160, window 14   64²
    stage 4  2 × window attention 320, window 7    64² (TinyViT halves here; MobileSAM does not)
    neck     320 → 256 channels                    64²

Sources: Wu, Zhang, Peng, Liu, Xiao, Fu, Yuan, "TinyViT", ECCV 2022 (https://arxiv.org/abs/2207.10666), section 3.2;
Zhang, Han, Qiao, Kim, Bae, Lee, Hong, "Faster Segment Anything", 2023 (https://arxiv.org/abs/2306.14289).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 1024
DIMS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
# Stride of the patch merging that leads into stages 2, 3 and 4.
MERGE_STRIDES = (2, 2, 1)


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation; not fused, as MobileSAM runs it."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class MBConv(nn.Module):
    """Inverted bottleneck with a residual, GELU after the sum too."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion
        self.body = nn.Sequential(
            conv_norm(dim, hidden),
            nn.GELU(),
            conv_norm(hidden, hidden, 3, groups=hidden),
            nn.GELU(),
            conv_norm(hidden, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return functional.gelu(x + self.body(x))


def patch_merging(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Change width, then resolution, between stages."""
    return nn.Sequential(
        conv_norm(inputs, outputs),
        nn.GELU(),
        conv_norm(outputs, outputs, 3, stride, groups=outputs),
        nn.GELU(),
        conv_norm(outputs, outputs),
    )


def offset_index(window: int) -> Tensor:
    """(tokens, tokens) long: |dy| · window + |dx| of each pair of tokens of a window, row by row."""
    place = torch.arange(window * window)
    rows, columns = place // window, place % window
    return (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()


class WindowAttention(nn.Module):
    """Multi-head attention in a square window, with one learnt bias per head and absolute offset (|dy|, |dx|)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.offset_bias = nn.Parameter(torch.zeros(heads, window * window))
        # Gathered once: the original too keeps the bias of every pair of tokens ready for inference.
        self.bias: Tensor
        self.register_buffer("bias", self.offset_bias.detach()[:, offset_index(window)], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape; the window's multiple is reached by zeros, which are attended to."""
        batch, height, width, dim = x.shape
        side = self.window
        x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        down, across = x.shape[1] // side, x.shape[2] // side
        x = x.view(batch, down, side, across, side, dim).transpose(2, 3).reshape(-1, side * side, dim)
        x = self._attend(x)
        x = x.view(batch, down, across, side, side, dim).transpose(2, 3).reshape(batch, down * side, across * side, dim)
        return x[:, :height, :width]

    def _attend(self, x: Tensor) -> Tensor:
        """(windows, tokens, C) → the same shape."""
        windows, tokens, dim = x.shape
        # Each head's query, key and value lie side by side.
        q, k, v = self.qkv(self.norm(x)).view(windows, tokens, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + self.bias
        out = scores.softmax(dim=-1) @ v
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(windows, tokens, dim))
        return projected


class AttentionBlock(nn.Module):
    """Window attention, a depthwise convolution that lets windows exchange, and an MLP."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(dim, heads, window)
        self.local = conv_norm(dim, dim, 3, groups=dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        tokens = x.permute(0, 2, 3, 1)
        x = (tokens + self.attention(tokens)).permute(0, 3, 1, 2)
        tokens = self.local(x).permute(0, 2, 3, 1)
        mixed: Tensor = tokens + self.mlp(tokens)
        return mixed.permute(0, 3, 1, 2)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).square().mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class MobileSamEncoder(nn.Module):
    """(B, 3, 1024, 1024) normalised RGB → (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(conv_norm(3, DIMS[0] // 2, 3, 2), nn.GELU(), conv_norm(DIMS[0] // 2, DIMS[0], 3, 2))
        layers: list[nn.Module] = [stem, *(MBConv(DIMS[0]) for _ in range(DEPTHS[0]))]
        for stage in (1, 2, 3):
            layers.append(patch_merging(DIMS[stage - 1], DIMS[stage], MERGE_STRIDES[stage - 1]))
            layers += [AttentionBlock(DIMS[stage], HEADS[stage], WINDOWS[stage]) for _ in range(DEPTHS[stage])]
        self.body = nn.Sequential(*layers)
        self.neck = nn.Sequential(
            nn.Conv2d(DIMS[-1], 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode a batch."""
        out: Tensor = self.neck(self.body(x))
        return out


def build() -> MobileSamEncoder:
    """The encoder with random weights, in float32 for inference."""
    torch.manual_seed(0)
    encoder = MobileSamEncoder()
    encoder.train(mode=False)
    return encoder
