"""The Segmenter: encode an image once, then answer prompts about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linocut.data.images import open_image
from linocut.data.limits import DEFAULT_MAX_PIXELS
from linocut.vision.decoder import SLOTS
from linocut.vision.encoder import Embedding, normalize, require_rgb
from linocut.vision.masks import Mask
from linocut.vision.network import SegmenterNet, channels_last
from linocut.vision.precision import Dtype, resolve
from linocut.vision.prompts import Prompt, transfer
from linocut.vision.windows import Window, fit, plan

if TYPE_CHECKING:
    from linocut.vision.everything import Everything
    from linocut.vision.session import Session

CANDIDATES = 3
_BATCH = 16
_SAME = 0.85


@dataclass(frozen=True)
class _Candidate:
    """A first-look mask: where it was seen, and how good it seems."""

    window: Window
    logits: Tensor
    iou: float
    single: bool


class Segmenter(nn.Module):
    """Segment anything in an image of any size.

    Args:
        net: encoder and decoder; converted to ``dtype`` in place.
        dtype: of the computation; ``auto`` takes what the environment variable ``LINOCUT_DTYPE`` says, else bfloat16
            where the processor multiplies matrices of it, else float32.

    Raises:
        ValueError: for an unknown dtype.

    Example:
        >>> import linocut
        >>> model = linocut.load()
        >>> embedding = model.encode(np.zeros((96, 128, 3), np.uint8))
        >>> prompts = [Prompt.of(points=[(56.5, 48.5)]), Prompt.of(box=(32, 24, 80, 72))]
        >>> [mask.array.shape for mask in model.decode(embedding, prompts)]
        [(96, 128), (96, 128)]
    """

    def __init__(self, net: SegmenterNet, *, dtype: Dtype = "auto") -> None:
        super().__init__()
        self.dtype = resolve(dtype)
        self.net = channels_last(net.to(self.dtype))
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it computes: the CPU."""
        return next(self.parameters()).device

    def to(self, device: str | torch.device) -> Segmenter:  # type: ignore[override]
        """This segmenter, for scripts that put their model on a device: the CPU is the only one there is.

        Unlike ``Module.to`` it takes no dtype, which is chosen once, by ``linocut.load(dtype=...)``.

        Args:
            device: ``"cpu"``.

        Raises:
            ValueError: for anything else.

        Example:
            >>> import linocut
            >>> linocut.load().to(device="cpu").device
            device(type='cpu')
        """
        if str(device).split(":")[0] != "cpu":
            raise ValueError(
                f"device must be 'cpu', got {device!r}: Linocut computes on the CPU alone; dtypes are for "
                "linocut.load(dtype=...)"
            )
        return self

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode an image once; linear in its number of pixels.

        Args:
            image: (H, W, 3) uint8 RGB, any size; :func:`linocut.open_image` makes one of anything.

        Raises:
            ValueError: for another shape or dtype, or an image without pixels.
        """
        image = require_rgb(image)
        pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
        octaves = self.net.encoder(normalize(pixels, self.dtype))
        return Embedding(octaves, (image.shape[0], image.shape[1]))

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Sequence[Prompt], *, candidates: int = CANDIDATES) -> list[Mask]:
        """Answer prompts, several objects at once; the cost of each does not depend on the image's size.

        Many prompts are answered in batches, so that the memory it takes does not grow with their number.

        Args:
            embedding: of :meth:`encode`.
            prompts: one an object.
            candidates: how many alternatives there shall be, >= 1.

        Returns:
            For each prompt its best mask; the alternatives are in its ``candidates``, smallest first, and are worked
            out when they are asked for.

        Raises:
            ValueError: if a prompt is empty or lies outside the image, or ``candidates`` < 1.
        """
        if candidates < 1:
            raise ValueError(f"candidates must be >= 1, got {candidates}")
        checked = [prompt.check(embedding.size) for prompt in prompts]
        parts = [checked[start : start + _BATCH] for start in range(0, len(checked), _BATCH)]
        return [mask for part in parts for mask in self._answer(embedding, part, candidates)]

    def _answer(self, embedding: Embedding, checked: Sequence[Prompt], candidates: int) -> list[Mask]:
        """One batch of prompts: only the most promising first-look mask of each gets its second look now."""
        ranked = [
            sorted(found, key=lambda c: (c.single, c.iou), reverse=True) for found in self._first(embedding, checked)
        ]
        best = self._second(embedding, checked, [found[0] for found in ranked])
        return [
            mask.with_candidates(partial(self._alternatives, embedding, prompt, mask, found, candidates))
            for mask, prompt, found in zip(best, checked, ranked, strict=True)
        ]

    def _second(self, embedding: Embedding, prompts: Sequence[Prompt], chosen: Sequence[_Candidate]) -> list[Mask]:
        """The second look at each of some first-look masks, all of one embedding; ``prompts`` are one a mask."""
        masks = torch.stack([torch.sigmoid(c.logits) for c in chosen])[:, None]
        windows = [c.window for c in chosen]
        images, sizes = [0] * len(chosen), [embedding.size] * len(chosen)
        fine = self.net.second_look(embedding.octaves, prompts, masks, windows, images, sizes)
        logits, scores = fine.logits.float().numpy(), fine.iou.tolist()
        return [
            Mask(logit, window, embedding.size, score=score)
            for logit, window, score in zip(logits, fine.windows, scores, strict=True)
        ]

    @torch.inference_mode()
    def _alternatives(
        self, embedding: Embedding, prompt: Prompt, mask: Mask, ranked: Sequence[_Candidate], count: int
    ) -> list[Mask]:
        """``count`` masks for a prompt, smallest first: the one there is and second looks at others of the first look.

        ``ranked`` are its first-look masks, best first; ``mask`` is what became of the best.
        """
        others = _choose(ranked, count)[1:]
        rest = self._second(embedding, [prompt] * len(others), others) if others else []
        return sorted([mask, *rest], key=_area)

    def _first(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[_Candidate]]:
        """The first look at every prompt; a given mask stands for it."""
        found: list[list[_Candidate]] = [[] for _ in prompts]
        asked: list[tuple[int, Window]] = []
        for index, prompt in enumerate(prompts):
            if prompt.mask is not None:
                seen = torch.logit(torch.from_numpy(prompt.mask.cover), eps=1e-4)
                found[index].append(_Candidate(prompt.mask.window, seen, 1.0, single=True))
            elif prompt.box is not None:
                asked.append((index, fit(prompt.box, embedding.size)))
            else:
                asked += [(index, window) for window in plan(prompt.positive, embedding.size)]
        if not asked:
            return found
        windows = [window for _, window in asked]
        look = self.net.first_look(
            embedding.octaves,
            [prompts[index] for index, _ in asked],
            windows,
            [0] * len(asked),
            [embedding.size] * len(asked),
        )
        logits, ious = look.logits.float(), look.iou.tolist()
        for row, (index, window) in enumerate(asked):
            found[index] += [
                _Candidate(window, logits[row, slot], ious[row][slot], single=slot == 0)
                for slot in range(1 if prompts[index].ambiguous else 0, SLOTS)
            ]
        return found

    def open(
        self,
        source: object,
        *,
        page: SupportsIndex = 0,
        value_range: Sequence[float] | None = None,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> Session:
        """Open an image for clicking; it is encoded here.

        Args:
            source: a path, array or PIL image; anything :func:`linocut.open_image` takes.
            page: which page of a TIFF or frame of an animation, from 0.
            value_range: the values that become black and white; by default the rules of :mod:`linocut.data.pixels`.
            max_pixels: refuse larger images before decoding them; None for no limit.

        Raises:
            FileNotFoundError: if there is no such file.
            ImageError: if it is no image, one that cannot be read, or a larger one.
            TypeError: if it is nothing of the kind.
            ValueError: if ``page`` is negative or ``value_range`` is not two ascending numbers.
        """
        from linocut.vision.session import Session

        return Session(self, open_image(source, page=page, value_range=value_range, max_pixels=max_pixels))

    def everything(
        self,
        image: object,
        *,
        page: SupportsIndex = 0,
        value_range: Sequence[float] | None = None,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        **options: Any,
    ) -> Everything:
        """Every object of an image.

        Args:
            image: a path, array or PIL image; anything :func:`linocut.open_image` takes.
            page: which page of a TIFF or frame of an animation, from 0.
            value_range: the values that become black and white; by default the rules of :mod:`linocut.data.pixels`.
            max_pixels: refuse larger images before decoding them; None for no limit.
            **options: the fields of :class:`linocut.vision.options.EverythingOptions`.

        Returns:
            The masks, largest first; as one label map in ``label_map``, as Segment Anything's dicts in ``records()``.

        Raises:
            FileNotFoundError: if there is no such file.
            ImageError: if it is no image, one that cannot be read, or a larger one.
            TypeError: for an option that does not exist, or if ``image`` is nothing of the kind.
            ValueError: for an option out of range.
        """
        from linocut.vision.everything import segment_everything
        from linocut.vision.options import EverythingOptions

        checked = EverythingOptions(**options)
        pixels = open_image(image, page=page, value_range=value_range, max_pixels=max_pixels)
        return segment_everything(self, pixels, checked)


def _area(mask: Mask) -> float:
    """A mask's area in pixels of the image, counted in cells of its window: it need not be drawn."""
    cell = mask.window.side / len(mask.logits)
    height, width = mask.size
    rows, columns = math.ceil((height - mask.window.y) / cell), math.ceil((width - mask.window.x) / cell)
    return np.count_nonzero(mask.logits[:rows, :columns] > 0) * cell**2


def _choose(ranked: Sequence[_Candidate], count: int) -> list[_Candidate]:
    """The best of one prompt's first-look masks, no two alike as long as there are others."""
    picked: list[_Candidate] = []
    for candidate in ranked:
        if len(picked) < count and not any(_alike(candidate, other) for other in picked):
            picked.append(candidate)
    rest = [c for c in ranked if not any(c is p for p in picked)]
    return picked + rest[: max(0, min(count, len(ranked)) - len(picked))]


def _alike(a: _Candidate, b: _Candidate) -> bool:
    """Whether two first-look masks are nearly the same, compared in the larger of their windows.

    In the smaller one a part that fills it would look like the whole.
    """
    frame = max(a.window, b.window, key=lambda window: window.level)
    inside = torch.stack([torch.sigmoid(a.logits), torch.sigmoid(b.logits)])[:, None]
    one, other = transfer(inside, [a.window, b.window], [frame, frame])[:, 0] > 0.5
    union = int((one | other).sum())
    return union == 0 or int((one & other).sum()) / union > _SAME
