"""Linocut as the benchmarks load it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import SegmenterNet
from linocut.vision.precision import Dtype
from linocut.vision.segmenter import Segmenter
from linocut.vision.weights import bundled_path, load


@dataclass(frozen=True)
class Ours:
    """A segmenter and a sentence on the weights in it, for the notes."""

    model: Segmenter
    weights: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose the weights."""
    parser.add_argument("--weights", type=Path, help="Linocut weights; by default those it ships with")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="random weights instead: the cost of a click does not depend on them",
    )


def build(weights: Path | None, *, random: bool = False, dtype: Dtype = "auto") -> Ours:
    """Load the segmenter.

    Args:
        weights: a file; None for the bundled ones.
        random: a network as it is before training, in place of either.
        dtype: of the computation.

    Raises:
        FileNotFoundError: if the file of weights is missing.
    """
    if random:
        torch.manual_seed(0)
        return Ours(Segmenter(SegmenterNet(EncoderConfig()), dtype=dtype), "Linocut's weights are random")
    path = bundled_path() if weights is None else weights
    return Ours(load(path, dtype=dtype), f"Linocut's weights are {path.name}")


def dtype_name(model: Segmenter) -> str:
    """How its numbers are called in a row's name."""
    return str(model.dtype).removeprefix("torch.")
