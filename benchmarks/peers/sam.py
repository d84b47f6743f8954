"""SAM ViT-B as `transformers` builds it, with random weights, and the two halves that are timed.

Kirillov et al., "Segment Anything", ICCV 2023 (https://arxiv.org/abs/2304.02643).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import SamModel

SIDE = 1024
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def build_sam() -> SamModel:
    """`SamModel(SamConfig())`, which is ViT-B, in float32 for inference.

    The default configuration draws the vision encoder with a deviation of 1e-10, so that products fall among the
    denormal numbers and the CPU slows down; weights are drawn again at the usual 0.02 so as not to time that.
    """
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    model = SamModel(SamConfig())
    model.train(mode=False)
    for parameter in model.vision_encoder.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    return model


def preprocess(image: NDArray[np.uint8]) -> Tensor:
    """What SAM and MobileSAM do to a 1024² image before the encoder: normalise, channels first.

    Args:
        image: (1024, 1024, 3) uint8 RGB. Any other size would be resized to this first.

    Returns:
        (1, 3, 1024, 1024) float32.

    Raises:
        ValueError: if the image has another shape.
    """
    if image.shape != (SIDE, SIDE, 3):
        raise ValueError(f"SAM takes ({SIDE}, {SIDE}, 3), got {image.shape}; resize the image first")
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std)[None]


@torch.inference_mode()
def encode(encoder: nn.Module, image: NDArray[np.uint8]) -> Tensor:
    """Image to embedding, normalisation included.

    Args:
        encoder: SAM's vision encoder or MobileSAM's.
        image: (1024, 1024, 3) uint8 RGB.

    Returns:
        (1, 256, 64, 64).
    """
    out = encoder(preprocess(image))
    embedding: Tensor = out if isinstance(out, Tensor) else out[0]
    return embedding


@torch.inference_mode()
def decode(model: SamModel, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt encoder and mask decoder, one positive point a prompt, three masks each, no post-processing.

    Args:
        model: from `build_sam`.
        embedding: (1, 256, 64, 64).
        points: (n, 2) float xy, in pixels of the 1024² frame.

    Returns:
        Mask logits (n, 3, 256, 256) and predicted IoU (n, 3).
    """
    position = model.get_image_wide_positional_embeddings()  # type: ignore[no-untyped-call]
    labels = torch.ones(1, len(points), 1, dtype=torch.int)
    sparse, dense = model.prompt_encoder(
        input_points=points[None, :, None], input_labels=labels, input_boxes=None, input_masks=None
    )
    logits, scores = model.mask_decoder(
        image_embeddings=embedding,
        image_positional_embeddings=position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return logits[0], scores[0]
