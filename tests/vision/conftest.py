"""The bundled model and photographs that anyone may have, shared by the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

import linocut
from linocut.vision.encoder import Embedding, EncoderConfig
from linocut.vision.network import SegmenterNet
from linocut.vision.segmenter import Segmenter

Image = NDArray[np.uint8]


@pytest.fixture(scope="session")
def model() -> Segmenter:
    """The weights that ship, in float32: bfloat16 rounds differently from machine to machine."""
    return linocut.load(dtype="float32")


@pytest.fixture(scope="session")
def untrained() -> Segmenter:
    """A narrow network with random weights, for what does not depend on what was learnt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SegmenterNet(EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1))
    return Segmenter(net, dtype="float32")


@pytest.fixture(scope="session")
def coins() -> Image:
    """(303, 384, 3) Greek coins from Pompeii, Brooklyn Museum collection, no known copyright."""
    return linocut.open_image(skimage.data.coins())


@pytest.fixture(scope="session")
def coins_embedding(model: Segmenter, coins: Image) -> Embedding:
    """Encoded once for all."""
    return model.encode(coins)
