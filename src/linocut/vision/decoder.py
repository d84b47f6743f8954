"""The mask decoder: one window of the embedding and its prompts to mask logits and predicted IoU.

A *look* reads a window at strides 4, 8 and 16 and answers with four masks of 64 × 64: slot 0 is the one answer for
unambiguous prompts (a box, a mask to correct), slots 1 to 3 are alternatives for an ambiguous one, as in Segment
Anything (Kirillov et al., ICCV 2023). The *fine* step sharpens slot 0 to 256 × 256 from the stride-2 features and the
pixels themselves. Prompts enter as maps (Sofiiuk et al., *Reviving Iterative Training with Mask Guidance*, 2021):
discs for clicks, an area for a box, the previous mask. What the window looks like under the clicks is also compared
with every token, so that a click reaches the whole object at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from linocut.vision.efficientnet import TRUNK_CHANNELS
from linocut.vision.encoder import EncoderConfig
from linocut.vision.layers import GlobalBlock, LocalBlock, TokenNorm, upsample
from linocut.vision.windows import WindowFeatures

GRID = 64
"""Side of a coarse mask, in cells."""

FINE = 256
"""Side of a fine mask, in cells."""

SLOTS = 4
_MAPS = 6
_DISC = 1.5 / GRID


@dataclass(frozen=True)
class WindowPrompt:
    """Prompts of N windows, in coordinates where the window is the unit square.

    Attributes:
        points: (N, P, 2) x, y of the clicks; those outside [0, 1] are seen only by their rim.
        labels: (N, P) 1 positive, 0 negative, −1 none (padding).
        boxes: (N, 4) x0, y0, x1, y1; all zero where there is none.
        mask: (N, 1, 64, 64) the previous mask as probability · 2 − 1; all zero where there is none.
        inside: (N, 4) the part of the window that is image, as x0, y0, x1, y1.
        zoomed: (N,) 1 where the window shows octave 0 enlarged, else 0.
    """

    points: Float[Tensor, "n p 2"]
    labels: Int[Tensor, "n p"]
    boxes: Float[Tensor, "n 4"]
    mask: Float[Tensor, "n 1 64 64"]
    inside: Float[Tensor, "n 4"]
    zoomed: Float[Tensor, " n"]


def discs(prompt: WindowPrompt, side: int) -> Float[Tensor, "n 2 side side"]:
    """A Gaussian disc per click, positive and negative clicks apart, the maximum where they overlap."""
    centers = (torch.arange(side, device=prompt.points.device, dtype=torch.float32) + 0.5) / side
    falloff = torch.exp(-((centers - prompt.points.float()[..., None]) ** 2) / (2 * _DISC**2))
    disc = falloff[:, :, 1, :, None] * falloff[:, :, 0, None, :]
    maps = [(disc * (prompt.labels == label)[..., None, None]).amax(dim=1) for label in (1, 0)]
    return torch.stack(maps, dim=1)


def areas(boxes: Float[Tensor, "n 4"], side: int) -> Float[Tensor, "n 1 side side"]:
    """How much of every cell each box covers, 0 to 1."""
    low = torch.arange(side, device=boxes.device, dtype=torch.float32) / side

    def cover(start: Tensor, end: Tensor) -> Tensor:
        reach = torch.minimum(end[:, None], low + 1 / side) - torch.maximum(start[:, None], low)
        return (reach * side).clamp(0, 1)

    x0, y0, x1, y1 = boxes.float().unbind(-1)
    return (cover(y0, y1)[:, :, None] * cover(x0, x1)[:, None, :])[:, None]


def prompt_maps(prompt: WindowPrompt) -> Float[Tensor, "n 6 64 64"]:
    """Everything a prompt says, as maps: positive, negative, box, previous mask, image, zoomed."""
    zoomed = prompt.zoomed.float()[:, None, None, None].expand(-1, 1, GRID, GRID)
    return torch.cat(
        [discs(prompt, GRID), areas(prompt.boxes, GRID), prompt.mask.float(), areas(prompt.inside, GRID), zoomed], dim=1
    )


class ClickSimilarity(nn.Module):
    """Compare every token with what lies under the positive and under the negative clicks, in several subspaces.

    A token's similarity to the clicks is per-token once the clicks' features are known, so it reaches any distance at
    linear cost.
    """

    def __init__(self, channels: int, *, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm = TokenNorm(channels)
        self.key = nn.Conv2d(channels, channels, 1)
        self.query = nn.Linear(channels, 2 * channels)
        self.spread = nn.Conv2d(3 * heads, channels, 1)
        self.summary = nn.Linear(3 * channels, channels)

    def forward(self, x: Float[Tensor, "n c h w"], weights: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Tokens and, per group (positive, negative, previous mask or box), where its evidence lies."""
        y = self.norm(x)
        flat, weight = y.flatten(2), weights.flatten(2).to(y.dtype)
        mass = weight.sum(-1, keepdim=True)
        evidence = torch.einsum("ngl,ncl->ngc", weight, flat) / mass.clamp_min(1e-3)
        evidence = evidence * (mass > 1e-3)
        query, value = self.query(evidence).chunk(2, dim=-1)
        batch, groups = evidence.shape[:2]
        key = self.key(y).reshape(batch, self.heads, -1, flat.shape[-1])
        query = query.reshape(batch, groups, self.heads, -1)
        scores = torch.einsum("nghd,nhdl->nghl", query, key) * key.shape[2] ** -0.5
        maps = torch.tanh(scores * (mass > 1e-3)[..., None]).reshape(batch, -1, *x.shape[-2:])
        out: Tensor = self.spread(maps) + self.summary(value.flatten(1))[:, :, None, None]
        return x + out


@dataclass(frozen=True)
class Look:
    """What one look found in N windows.

    Attributes:
        logits: (N, 4, 64, 64).
        iou: (N, 4) predicted IoU with the object, 0 to 1.
        hidden: (N, C4, 64, 64) features the fine step goes on from.
    """

    logits: Tensor
    iou: Tensor
    hidden: Tensor


class MaskDecoder(nn.Module):
    """Looks through windows of fixed size; see the module's docstring.

    Args:
        config: the encoder's configuration, whose widths it shares.
        fine_channels: width of the fine step.
    """

    def __init__(self, config: EncoderConfig, *, fine_channels: int = 24) -> None:
        super().__init__()
        c16, c8, c4 = config.channels16, config.channels8, config.channels4
        self.prompt8 = nn.Conv2d(_MAPS, c8, 4, stride=2, padding=1)
        self.prompt4 = nn.Conv2d(_MAPS, c4, 3, padding=1)
        self.enter = LocalBlock(c8, kernel=5)
        self.similarity = ClickSimilarity(c8)
        self.down = nn.Conv2d(c8, c16, 2, stride=2)
        self.middle = nn.Sequential(
            LocalBlock(c16, kernel=7),
            GlobalBlock(c16, mixer=config.mixer, kernel=7),
            LocalBlock(c16, kernel=7),
            GlobalBlock(c16, mixer=config.mixer, kernel=7),
        )
        self.up8 = nn.Conv2d(c16, c8, 1)
        self.leave8 = LocalBlock(c8, kernel=5)
        self.up4 = nn.Conv2d(c8, c4, 1)
        self.leave4 = LocalBlock(c4, kernel=5)
        self.leave = TokenNorm(c4)
        self.masks = nn.Conv2d(c4, SLOTS, 1)
        self.quality = nn.Sequential(nn.Linear(2 * c8 + 2, c8), nn.ReLU(), nn.Linear(c8, SLOTS))
        self.fine = FineStep(c4, fine_channels)

    def forward(self, window: WindowFeatures, prompt: WindowPrompt) -> Look:
        """One look at N windows; reads strides 4, 8 and 16."""
        maps = prompt_maps(prompt).to(window.stride8.dtype)
        x8 = self.enter(window.stride8 + self.prompt8(maps))
        evidence = torch.cat([maps[:, :2], torch.maximum(maps[:, 2:3], maps[:, 3:4].clamp_min(0))], dim=1)
        x8 = self.similarity(x8, functional.avg_pool2d(evidence, 2))
        x16 = self.middle(window.stride16 + self.down(x8))
        x8 = self.leave8(x8 + upsample(self.up8(x16)))
        x4 = self.leave(self.leave4(window.stride4 + self.prompt4(maps) + upsample(self.up4(x8))))
        logits = self.masks(x4)
        return Look(logits, self._predict_iou(logits.detach(), x8), x4)

    def _predict_iou(self, logits: Tensor, x8: Tensor) -> Float[Tensor, "n 4"]:
        """Predicted IoU of every slot, from the features inside its mask and how sharp it is."""
        soft = functional.avg_pool2d(torch.sigmoid(logits), 2).flatten(2)
        flat = x8.flatten(2)
        mass = soft.sum(-1, keepdim=True).clamp_min(1e-3)
        inside = torch.einsum("nsl,ncl->nsc", soft, flat) / mass
        overall = flat.mean(-1)[:, None].expand_as(inside)
        size = soft.mean(-1, keepdim=True)
        doubt = (soft * (1 - soft)).sum(-1, keepdim=True) / mass
        scores = self.quality(torch.cat([inside, overall, size, doubt], dim=-1))
        return torch.sigmoid(scores.diagonal(dim1=1, dim2=2).float())

    def refine(self, window: WindowFeatures, prompt: WindowPrompt, look: Look) -> Float[Tensor, "n 1 256 256"]:
        """Slot 0 at the resolution of the octave's pixels; reads the pixels and stride 2."""
        out: Tensor = self.fine(window, discs(prompt, 2 * GRID), look)
        return out


class FineStep(nn.Module):
    """Sharpen slot 0 of a look from 64² to 256² with stride-2 features and pixels.

    Plain 3×3 convolutions: at this resolution memory traffic is the cost, and they make the fewest passes.
    """

    def __init__(self, c4: int, channels: int) -> None:
        super().__init__()
        self.from_look = nn.Conv2d(c4, channels, 1)
        self.from_window = nn.Conv2d(TRUNK_CHANNELS[2] + 12 + 3, channels, 3, padding=1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(
        self, window: WindowFeatures, clicks: Float[Tensor, "n 2 128 128"], look: Look
    ) -> Float[Tensor, "n 1 256 256"]:
        """Coarse logits plus a learnt correction."""
        coarse = look.logits[:, :1]
        pixels = functional.pixel_unshuffle(window.pixels, 2)
        maps = torch.cat([window.stride2, pixels, clicks.to(coarse.dtype), torch.tanh(upsample(coarse) / 4)], dim=1)
        x = functional.relu(upsample(self.from_look(look.hidden)) + self.from_window(maps), inplace=True)
        x = functional.relu(self.middle(x), inplace=True)
        return upsample(coarse, 4) + functional.pixel_shuffle(self.out(x), 2)
