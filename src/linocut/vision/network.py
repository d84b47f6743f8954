"""The network: encoder and decoder together, and the two looks every answer is made of.

The *first look* sees the prompt through one or a few windows and says roughly where the object is. The *second look*
sees it through the finest window that holds the object and all positive points, knows the first look's mask, and is
sharpened to the pixels of its octave. Both are functions of the set of prompts alone: no order, no history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from linocut.vision.decoder import Look, MaskDecoder
from linocut.vision.encoder import EncoderConfig, ImageEncoder, Octave
from linocut.vision.prompts import Prompt, extents, to_window, transfer
from linocut.vision.windows import Window, cut, fit, gather

Size = tuple[int, int]
NetT = TypeVar("NetT", bound=nn.Module)


@dataclass(frozen=True)
class FineLook:
    """The second look at N objects.

    Attributes:
        windows: where each was looked at.
        coarse: the look itself.
        logits: (N, 256, 256), slot 0 sharpened.
        iou: (N,) predicted IoU.
    """

    windows: list[Window]
    coarse: Look
    logits: Tensor
    iou: Tensor


class SegmenterNet(nn.Module):
    """Image encoder and mask decoder.

    Args:
        config: widths and the mixer's name.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config)
        self.decoder = MaskDecoder(config)

    def first_look(
        self,
        octaves: Sequence[Octave],
        prompts: Sequence[Prompt],
        windows: Sequence[Window],
        batch: Sequence[int],
        sizes: Sequence[Size],
    ) -> Look:
        """Look at N prompts through N windows; ``batch`` and ``sizes`` say which image each is of and how large."""
        features = gather(cut(octaves, windows, batch, fine=False), fine=False)
        look: Look = self.decoder(features, to_window(prompts, windows, sizes), sharp=False)
        return look

    def second_look(
        self,
        octaves: Sequence[Octave],
        prompts: Sequence[Prompt],
        masks: Tensor,
        windows: Sequence[Window],
        batch: Sequence[int],
        sizes: Sequence[Size],
    ) -> FineLook:
        """Look again at N objects, given probability masks (N, 1, h, w) in ``windows``."""
        targets = [
            second_window(prompt, extent, size)
            for prompt, extent, size in zip(prompts, extents(masks[:, 0], windows), sizes, strict=True)
        ]
        features = gather(cut(octaves, targets, batch))
        prompt = to_window(prompts, targets, sizes, transfer(masks, windows, targets))
        look = self.decoder(features, prompt, sharp=True)
        logits = self.decoder.refine(features, prompt, look)[:, 0]
        return FineLook(targets, look, logits, look.iou[:, 0])


def channels_last(net: NetT) -> NetT:
    """The same network, its convolutions in the layout in which a CPU runs them fastest."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def second_window(prompt: Prompt, extent: tuple[float, float, float, float] | None, size: Size) -> Window:
    """The finest window that holds what the first look found, the box and every positive point."""
    boxes = [b for b in (extent, prompt.box) if b is not None]
    boxes += [(x, y, x, y) for x, y in prompt.positive]
    if not boxes:
        boxes = [(0.0, 0.0, float(size[1]), float(size[0]))]
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[2] for b in boxes), max(b[3] for b in boxes)
    return fit((x0, y0, x1, y1), size)
