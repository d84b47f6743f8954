"""Segment Anything's interface over Linocut: models by SAM's names, and its predictor.

Code written for the official ``segment_anything`` package (Kirillov et al., *Segment Anything*, ICCV 2023;
https://github.com/facebookresearch/segment-anything) runs with another import and without SAM's checkpoint: methods,
arguments, their order, shapes and dtypes are the same. What differs, because Linocut does not resize images:

- ``transform`` changes nothing: transformed and original coordinates are the same.
- ``get_image_embedding`` has the size of the image, not 64 × 64.
- Low-resolution masks do keep SAM's frame: the image's long side is 256 cells, the rest is padding right and below.

Nor does SAM check its prompts. Here a point outside the image is moved to its edge, and prompts that name no object
(negative points or an empty ``mask_input``, and nothing else) give empty masks with the score 0; arrays of a wrong
shape, a box outside the image and no prompt at all are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from linocut.vision.encoder import Embedding
from linocut.vision.frames import LOW_SIDE, empty_mask, frame_logits, given_mask, image_logits
from linocut.vision.masks import Mask
from linocut.vision.prompts import Prompt
from linocut.vision.segmenter import CANDIDATES, Segmenter
from linocut.vision.weights import load


def build_sam(checkpoint: str | Path | None = None) -> Segmenter:
    """Load a segmenter, as SAM's scripts do: ``sam_model_registry["vit_h"](checkpoint=None)``.

    Args:
        checkpoint: a ``.safetensors`` file of Linocut weights; None takes those that ship with Linocut.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a checkpoint of Segment Anything, or a file that does not hold Linocut weights.

    Example:
        >>> from linocut import SamPredictor, sam_model_registry
        >>> sam = sam_model_registry["vit_h"](checkpoint=None)
        >>> sam.to(device="cpu").device
        device(type='cpu')
        >>> predictor = SamPredictor(sam)
    """
    if checkpoint is not None and Path(checkpoint).suffix != ".safetensors":
        raise ValueError(
            f"checkpoint must be a .safetensors file of Linocut weights, or None for those that ship, got "
            f"{str(checkpoint)!r}: Linocut is another network, which cannot use Segment Anything's weights"
        )
    return load(checkpoint)


sam_model_registry: dict[str, Callable[..., Segmenter]] = dict.fromkeys(
    ("default", "vit_h", "vit_l", "vit_b"), build_sam
)
"""Segment Anything's names of its models. Linocut has one network: each of them loads it, see :func:`build_sam`."""


class Unresized:
    """Stands where the official predictor has ``ResizeLongestSide``; returns everything as it came."""

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image (H, W, 3)."""
        return image

    def apply_coords(self, coords: NDArray[Any], original_size: tuple[int, ...]) -> NDArray[Any]:  # noqa: ARG002
        """Points (…, 2) of an image of ``original_size`` (height, width)."""
        return coords

    def apply_boxes(self, boxes: NDArray[Any], original_size: tuple[int, ...]) -> NDArray[Any]:  # noqa: ARG002
        """Boxes (B, 4) of an image of ``original_size`` (height, width)."""
        return boxes

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W)."""
        return image

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Points (…, 2) of an image of ``original_size`` (height, width)."""
        return coords

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Boxes (B, 4) of an image of ``original_size`` (height, width)."""
        return boxes


class SamPredictor:
    """The official ``SamPredictor``: set an image once, then ask for masks.

    Args:
        sam_model: a segmenter; None loads the bundled one.

    Attributes:
        model: the segmenter.
        transform: changes nothing; there for code that uses it.
        is_image_set: whether :meth:`predict` may be called.
        features: what the encoder knows of the image, or None.
        original_size: (height, width) of the image, or None.
        input_size: the same.

    Example:
        >>> from linocut import SamPredictor
        >>> predictor = SamPredictor()
        >>> predictor.set_image(np.zeros((96, 128, 3), np.uint8))
        >>> masks, scores, logits = predictor.predict(np.array([[56, 48]]), np.array([1]))
        >>> masks.shape, scores.shape, logits.shape
        ((3, 96, 128), (3,), (3, 256, 256))
    """

    def __init__(self, sam_model: Segmenter | None = None) -> None:
        self.model = load() if sam_model is None else sam_model
        self.transform = Unresized()
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Where the model computes: the CPU."""
        return self.model.device

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image; all prompts are about it until the next. One that is refused leaves no image set.

        Args:
            image: (H, W, 3) uint8, any size.
            image_format: the order of its channels, ``RGB`` or ``BGR``.

        Raises:
            ValueError: for another format, shape or dtype.
        """
        self.reset_image()
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"image_format must be RGB or BGR, got {image_format!r}")
        pixels = np.asarray(image)
        if image_format == "BGR" and pixels.ndim == 3:
            pixels = pixels[..., ::-1]
        self._keep(self.model.encode(pixels))

    def set_torch_image(self, transformed_image: Tensor, original_image_size: tuple[int, ...]) -> None:
        """Encode an image that is a tensor already.

        Args:
            transformed_image: (1, 3, H, W) RGB, values 0 to 255, through :attr:`transform` or not at all.
            original_image_size: its (height, width).

        Raises:
            ValueError: for another shape or other values, or if the image has been resized.
        """
        self.reset_image()
        shape = tuple(transformed_image.shape)
        if len(shape) != 4 or shape[:2] != (1, 3):
            raise ValueError(f"set_torch_image takes one RGB image of shape (1, 3, H, W), got {shape}")
        if shape[2:] != tuple(original_image_size):
            raise ValueError(
                f"Linocut takes images as they are: the tensor's size {shape[2:]} must be the original size "
                f"{tuple(original_image_size)}; use predictor.transform in place of ResizeLongestSide"
            )
        pixels = transformed_image[0].permute(1, 2, 0).detach().cpu()
        if pixels.numel() and (pixels.min() < 0 or pixels.max() > 255 or pixels.isnan().any()):
            raise ValueError(f"values must be 0 to 255, got {float(pixels.min()):g} to {float(pixels.max()):g}")
        if pixels.is_floating_point():
            pixels = pixels.round()
        self._keep(self.model.encode(pixels.to(torch.uint8).numpy()))

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Masks of one object.

        Args:
            point_coords: (N, 2) x, y in pixels; a whole number means that pixel's centre, as in SAM. Points outside
                the image are moved to its edge.
            point_labels: (N,) 1 positive, 0 negative, −1 no point (padding). Negative points alone name no object.
            box: (4,) x0, y0, x1, y1 in pixels, edges included.
            mask_input: (1, 256, 256) logits of an earlier answer.
            multimask_output: three masks, smallest first, in place of one.
            return_logits: masks as logits, to be cut at 0.

        Returns:
            Masks (C, H, W) bool, or float32 logits; predicted IoU (C,); low-resolution logits (C, 256, 256). C is 3
            or 1. Where there are fewer than three alternatives (a mask to correct has none) the last is repeated.
            Where no object is named the masks are empty and their scores 0.

        Raises:
            RuntimeError: if no image is set.
            ValueError: for wrong shapes or labels, no prompt at all, or a box outside the image.
        """
        embedding = self._embedding()
        prompt = _prompt(embedding.size, point_coords, point_labels, box, mask_input)
        (found,) = self._answer([prompt], multimask_output)
        masks: NDArray[np.bool_] | NDArray[np.float32]
        if return_logits:
            masks = np.stack([image_logits(mask) for mask in found])
        else:
            masks = np.stack([mask.array for mask in found])
        scores = np.array([mask.score for mask in found], dtype=np.float32)
        return masks, scores, np.stack([frame_logits(mask) for mask in found])

    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of B objects at once; see :meth:`predict`.

        Args:
            point_coords: (B, N, 2).
            point_labels: (B, N).
            boxes: (B, 4).
            mask_input: (B, 1, 256, 256).
            multimask_output: three masks an object in place of one.
            return_logits: masks as logits.

        Returns:
            Masks (B, C, H, W), predicted IoU (B, C), low-resolution logits (B, C, 256, 256).

        Raises:
            RuntimeError: if no image is set.
            ValueError: for wrong shapes or labels, numbers of objects that differ, no prompt at all, or a box outside
                the image.
        """
        embedding = self._embedding()
        given = {"point_coords": point_coords, "point_labels": point_labels, "boxes": boxes, "mask_input": mask_input}
        arrays = {name: value.detach().cpu().numpy() for name, value in given.items() if value is not None}
        counts = {name: len(value) for name, value in arrays.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"all prompts must be of the same number of objects, got {counts}")
        names = ("point_coords", "point_labels", "boxes", "mask_input")
        prompts = [
            _prompt(embedding.size, *(arrays[name][i] if name in arrays else None for name in names))
            for i in range(next(iter(counts.values()), 0))
        ]
        if not prompts:
            raise ValueError("predict_torch needs points, boxes or masks of at least one object, got none")
        found = self._answer(prompts, multimask_output)
        draw = image_logits if return_logits else _array
        return (
            torch.from_numpy(np.stack([np.stack([draw(mask) for mask in masks]) for masks in found])),
            torch.tensor([[mask.score for mask in masks] for masks in found]),
            torch.from_numpy(np.stack([np.stack([frame_logits(mask) for mask in masks]) for masks in found])),
        )

    def get_image_embedding(self) -> Float[Tensor, "1 c h w"]:
        """The image's features at stride 16 and full resolution; all of them are in :attr:`features`.

        Raises:
            RuntimeError: if no image is set.
        """
        return self._embedding().octaves[0].stride16.float()

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features: Embedding | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None

    def _keep(self, embedding: Embedding) -> None:
        self.features, self.is_image_set = embedding, True
        self.original_size = self.input_size = embedding.size

    def _embedding(self) -> Embedding:
        if self.features is None:
            raise RuntimeError("no image is set: call set_image(image) before asking for masks or the embedding")
        return self.features

    def _answer(self, prompts: Sequence[Prompt], multimask_output: bool) -> list[list[Mask]]:
        """For each prompt three masks, or one; empty ones where it names no object."""
        embedding, count = self._embedding(), CANDIDATES if multimask_output else 1
        # no prompt at all is for `decode` to refuse
        askable = [prompt.names_object or prompt == Prompt() for prompt in prompts]
        answers = iter(self.model.decode(embedding, list(compress(prompts, askable)), candidates=count))
        nothing = empty_mask(embedding.size)
        return [_alternatives(next(answers) if is_askable else nothing, count) for is_askable in askable]


def _alternatives(mask: Mask, count: int) -> list[Mask]:
    """A mask alone, or as many of its candidates as SAM gives: the last is repeated where there are fewer."""
    if count == 1:
        return [mask]
    found = mask.candidates or (mask,)
    return [*found, *[found[-1]] * (count - len(found))]


def _array(mask: Mask) -> NDArray[np.bool_]:
    return mask.array


def _prompt(
    size: tuple[int, int],
    coords: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
) -> Prompt:
    """SAM's arguments as a prompt."""
    points, signs = _points(size, coords, labels)
    mask = None
    if mask_input is not None:
        low = np.asarray(mask_input, dtype=np.float32)
        if low.shape not in ((1, LOW_SIDE, LOW_SIDE), (LOW_SIDE, LOW_SIDE)):
            raise ValueError(f"mask_input must have shape (1, {LOW_SIDE}, {LOW_SIDE}), got {low.shape}")
        mask = given_mask(low.reshape(LOW_SIDE, LOW_SIDE), size)
    return Prompt.of(points, signs, box, mask)


def _points(
    size: tuple[int, int], coords: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points moved to pixel centres and into the image, without the padding."""
    if (coords is None) != (labels is None):
        raise ValueError("point_coords and point_labels go together: one of them is missing")
    if coords is None or labels is None:
        return np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    xy, signs = np.asarray(coords, dtype=np.float64), np.asarray(labels)
    if xy.ndim != 2 or xy.shape[1] != 2 or signs.shape != xy.shape[:1]:
        raise ValueError(
            f"point_coords must have shape (N, 2) and point_labels (N,) an object, got {xy.shape} and {signs.shape}"
        )
    if not np.isin(signs, (-1, 0, 1)).all():
        raise ValueError(f"point_labels must be 1 (positive), 0 (negative) or -1 (padding), got {signs.tolist()}")
    xy, signs = xy[signs >= 0], signs[signs >= 0].astype(np.int64)
    return np.clip(xy + 0.5, 0, size[::-1]), signs
