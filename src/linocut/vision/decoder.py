"""The mask decoder: one window of the embedding and its prompts to mask logits and predicted IoU.

A *look* reads a window at strides 4, 8 and 16 and answers with four masks of 64 × 64: slot 0 is the one answer for
unambiguous prompts (a box, a mask to correct), slots 1 to 3 are alternatives for an ambiguous one, as in Segment
Anything (Kirillov et al., ICCV 2023). The *fine* step sharpens slot 0 to 256 × 256 from the stride-2 features and the
pixels themselves. Prompts enter as maps (Sofiiuk et al., *Reviving Iterative Training with Mask Guidance*, 2021):
discs for clicks, an area for a box, the previous mask. Twice every token also attends to what lies under the clicks, so
that a click reaches the whole object at once and the nearest click is obeyed.
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
_LAYOUT = torch.channels_last
_MAPS = 6
_DISC = 1.5 / GRID
_FINE_DISC = 1.5 / (2 * GRID)  # half as wide: the fine step mends errors of a few pixels
_AREA = 2  # what a click is called whose features are those of the box or mask; 0 negative, 1 positive
_FAINT = 1e-3  # less than this of a click or an area in the window counts as none


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


def _offsets(points: Float[Tensor, "n p 2"], side: int) -> Float[Tensor, "n p 2 side"]:
    """From every click to the centre of every column (first) and of every row, in windows."""
    centers = (torch.arange(side, device=points.device, dtype=torch.float32) + 0.5) / side
    return centers - points.float()[..., None]


def click_discs(points: Float[Tensor, "n p 2"], side: int, sigma: float = _DISC) -> Float[Tensor, "n p side side"]:
    """A Gaussian disc per click, 1 at its centre; ``sigma`` is its deviation in windows."""
    falloff = torch.exp(-(_offsets(points, side) ** 2) / (2 * sigma**2))
    return falloff[:, :, 1, :, None] * falloff[:, :, 0, None, :]


def _distances(points: Float[Tensor, "n p 2"], side: int) -> Float[Tensor, "n p side side"]:
    """From every cell's centre to every click, in windows."""
    squares = _offsets(points, side) ** 2
    return (squares[:, :, 1, :, None] + squares[:, :, 0, None, :]).sqrt()


def discs(prompt: WindowPrompt, side: int, sigma: float = _DISC) -> Float[Tensor, "n 2 side side"]:
    """The discs of the positive and of the negative clicks, the maximum where they overlap."""
    disc = click_discs(prompt.points, side, sigma)
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


@dataclass(frozen=True)
class Heard:
    """Where P clicks and one area (the previous mask or the box) lie among the tokens of N windows.

    Attributes:
        weight: (N, P + 1, L) the share each token has in what lies under a click or in the area; all zero for nothing.
        kinds: (N, P + 1) 0 negative, 1 positive, 2 area.
        distance: (N, P + 1, L) from every token to every click, in windows; 0 for the area.
        absent: (N, 1, P + 1, 1) infinite where there is no click or no area, else 0.
    """

    weight: Float[Tensor, "n p1 l"]
    kinds: Int[Tensor, "n p1"]
    distance: Float[Tensor, "n p1 l"]
    absent: Float[Tensor, "n 1 p1 1"]


def hear(prompt: WindowPrompt, area: Float[Tensor, "n 1 side side"]) -> Heard:
    """What every token attends to: worked out once a look."""
    side = area.shape[-1]
    weight = torch.cat([click_discs(prompt.points, side).flatten(2), area.flatten(2).float()], dim=1)
    mass = weight.sum(-1, keepdim=True)
    kinds = functional.pad(prompt.labels, (0, 1), value=_AREA)
    missing = (mass <= _FAINT) | (kinds < 0)[..., None]
    absent = torch.zeros_like(mass).masked_fill(missing, torch.inf)[:, None]
    distance = functional.pad(_distances(prompt.points, side).flatten(2), (0, 0, 0, 1))
    return Heard((weight / mass.clamp_min(_FAINT)).to(area.dtype), kinds.clamp_min(0), distance, absent)


class PromptAttention(nn.Module):
    r"""Every token attends to what lies under each click, and to the mean of the previous mask or the box.

    .. math::
        w_{t,i} \propto \exp(q_t^T k_i / \sqrt d - \lambda_h |t - i|), \qquad y_t = x_t + W \sum_i w_{t,i} v_i

    A click's key and value are the features under it and its sign, so tokens that look like a click follow it, and of
    two clicks that look alike the nearer one decides (λ of head h is learnt; the distance is in windows). One more
    entry with a learnt score and no value lets a token follow none. The prompts are a set, each token reads it on its
    own: the cost is linear in tokens and in clicks, and a click reaches any distance at once.

    Args:
        channels: C, a multiple of ``heads``.
        heads: with slopes of their own.
    """

    def __init__(self, channels: int, *, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.kind = nn.Parameter(0.2 * torch.randn(3, channels))
        self.slope = nn.Parameter(torch.linspace(-2.0, 3.0, heads))
        self.none = nn.Parameter(torch.zeros(heads))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "n c h w"], heard: Heard) -> Float[Tensor, "n c h w"]:
        """Tokens, and what was heard of the prompt."""
        side = x.shape[-1]
        tokens = self.norm(x.permute(0, 2, 3, 1)).flatten(1, 2)
        evidence = torch.bmm(heard.weight, tokens) + self.kind[heard.kinds].to(tokens.dtype)
        reads, writes, offsets = self._fold(evidence)

        scores = torch.bmm(reads.flatten(1, 2), tokens.transpose(1, 2)).reshape(*reads.shape[:3], -1).float()
        scores = scores + offsets[..., None].float() - self._penalty(heard)
        none = self.none[None, :, None, None].expand(len(x), -1, 1, tokens.shape[1])
        shares = torch.cat([scores, none.to(scores.dtype)], dim=2).softmax(2)[:, :, :-1].to(writes.dtype)
        read = torch.bmm(shares.flatten(1, 2).transpose(1, 2), writes.flatten(1, 2)) + self.out.bias
        out: Tensor = x + read.reshape(len(x), side, side, -1).permute(0, 3, 1, 2)
        return out

    def _fold(self, evidence: Float[Tensor, "n p c"]) -> tuple[Tensor, Tensor, Tensor]:
        """What is read of a token and written to it for each head and click, and what the query's bias adds.

        The clicks are few and the tokens many, so the projections of queries and outputs are taken on the clicks' side:
        (W t + b)ᵀk = tᵀ(Wᵀk) + bᵀk.
        """
        heads, width = self.heads, self.out.out_features // self.heads
        key, value = self.key_value(evidence).reshape(*evidence.shape[:2], 2, heads, width).unbind(2)
        key = key * width**-0.5
        query, bias = self.query.weight.reshape(heads, width, -1), self.query.bias.reshape(heads, width)
        reads = torch.einsum("nphd,hdc->nhpc", key, query)
        writes = torch.einsum("nphd,chd->nhpc", value, self.out.weight.reshape(-1, heads, width))
        return reads, writes, torch.einsum("nphd,hd->nhp", key, bias)

    def _penalty(self, heard: Heard) -> Float[Tensor, "n heads p1 l"]:
        """What the distance of every token to every click takes off a score; infinitely much for absent clicks."""
        return functional.softplus(self.slope.float())[:, None, None] * heard.distance[:, None] + heard.absent


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
        self.ask = PromptAttention(c8)
        self.down = nn.Conv2d(c8, c16, 2, stride=2)
        self.middle = nn.Sequential(
            LocalBlock(c16, kernel=7),
            GlobalBlock(c16, mixer=config.mixer, kernel=7),
            LocalBlock(c16, kernel=7),
            GlobalBlock(c16, mixer=config.mixer, kernel=7),
        )
        self.up8 = nn.Conv2d(c16, c8, 1)
        self.ask_again = PromptAttention(c8)
        self.leave8 = LocalBlock(c8, kernel=5)
        self.up4 = nn.Conv2d(c8, c4, 1)
        self.leave4 = LocalBlock(c4, kernel=5)
        self.leave = TokenNorm(c4)
        self.masks = nn.Conv2d(c4, SLOTS, 1)
        self.quality = nn.Sequential(nn.Linear(2 * c8 + 2, c8), nn.ReLU(), nn.Linear(c8, SLOTS))
        self.fine = FineStep(c4, fine_channels)

    def forward(self, window: WindowFeatures, prompt: WindowPrompt, *, sharp: bool) -> Look:
        """One look at N windows; reads strides 4, 8 and 16.

        Args:
            window: their features.
            prompt: their prompts.
            sharp: whether to work on the stride-4 features once more, for a mask that is to be refined.
        """
        maps = prompt_maps(prompt).to(window.stride8.dtype)
        x8 = self.enter(window.stride8 + self.prompt8(maps))
        area = functional.avg_pool2d(torch.maximum(maps[:, 2:3], maps[:, 3:4].clamp_min(0)), 2)
        heard = hear(prompt, area)
        x8 = self.ask(x8, heard)
        x16 = self.middle(window.stride16 + self.down(x8))
        x8 = self.leave8(self.ask_again(x8 + upsample(self.up8(x16)), heard))
        x4 = window.stride4 + self.prompt4(maps) + upsample(self.up4(x8))
        x4 = self.leave(self.leave4(x4) if sharp else x4)
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
        out: Tensor = self.fine(window, discs(prompt, 2 * GRID, _FINE_DISC), look)
        return out


class FineStep(nn.Module):
    """Sharpen slot 0 of a look from 64² to 256² with stride-2 features and pixels.

    Plain 3×3 convolutions: at this resolution memory traffic is the cost, and they make the fewest passes.
    """

    def __init__(self, c4: int, channels: int) -> None:
        super().__init__()
        self.from_look = nn.Conv2d(c4, channels, 1)
        self.from_window = nn.Conv2d(TRUNK_CHANNELS[2] + 3, channels, 3, padding=1)
        self.from_pixels = nn.Conv2d(3, channels, 4, stride=2, padding=1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(
        self, window: WindowFeatures, clicks: Float[Tensor, "n 2 128 128"], look: Look
    ) -> Float[Tensor, "n 1 256 256"]:
        """Coarse logits plus a learnt correction."""
        coarse = look.logits[:, :1]
        prompt = torch.cat([clicks.to(coarse.dtype), torch.tanh(upsample(coarse) / 4)], dim=1)
        # all parts in one layout, or the convolution would first copy what was put together
        maps = torch.cat([window.stride2, prompt.to(window.stride2.dtype).contiguous(memory_format=_LAYOUT)], dim=1)
        x = upsample(self.from_look(look.hidden)) + self.from_window(maps) + self.from_pixels(window.pixels)
        x = functional.relu(self.middle(functional.relu(x, inplace=True)), inplace=True)
        return upsample(coarse, 4) + functional.pixel_shuffle(self.out(x), 2)
