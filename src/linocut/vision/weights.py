"""Reading and writing weights: fp16 safetensors with the configuration in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from linocut.data.files import write_atomic
from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import NetT, SegmenterNet
from linocut.vision.precision import Dtype
from linocut.vision.segmenter import Segmenter

BUNDLED = "linocut-base.safetensors"
_FORMAT = "linocut-segmenter-1"


def save_weights(path: str | Path, weights: Mapping[str, Tensor], config: EncoderConfig) -> None:
    """Write the segmenter's weights as fp16, whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        weights: the state of a :class:`SegmenterNet`, by name.
        config: what that network was built with; it goes into the header.

    Raises:
        OSError: if the file cannot be written.
    """
    write_weights(path, weights, _FORMAT, asdict(config))


def load_net(path: str | Path) -> SegmenterNet:
    """Build the network a file of weights describes, in float32.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a file of Linocut weights, or is damaged.
    """
    return read_weights(path, _FORMAT, lambda config: SegmenterNet(EncoderConfig(**config)))


def write_weights(path: str | Path, weights: Mapping[str, Tensor], kind: str, config: Mapping[str, Any]) -> None:
    """Write a network's weights as fp16 safetensors, whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        weights: the state, by name.
        kind: what the network is for; read again by :func:`read_weights`.
        config: what it was built with, as JSON can hold it.

    Raises:
        OSError: if the file cannot be written.
    """
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in weights.items()}
    # not safetensors' save_file: its files can be read by nobody else
    write_atomic(path, save(half, metadata={"format": kind, "config": json.dumps(config)}))


def read_weights(path: str | Path, kind: str, build: Callable[[dict[str, Any]], NetT]) -> NetT:
    """Read what :func:`write_weights` wrote, into a network in float32.

    Args:
        path: the file.
        kind: what the network must be for.
        build: makes the network from the configuration in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a file of this kind, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if header.get("format") != kind:
        raise ValueError(f"{path} does not hold Linocut weights (format {header.get('format')!r}, wanted {kind!r})")
    try:
        net = build(json.loads(header["config"]))
        net.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: the weights do not fit the network they describe: {error}") from error
    return net


def load(weights: str | Path | None = None, *, dtype: Dtype = "auto") -> Segmenter:
    """Load a segmenter, ready to use.

    Args:
        weights: a file of weights; None takes those that ship with Linocut. They say which mixer the network has.
        dtype: ``auto``, ``float32`` or ``bfloat16``; ``auto`` takes bfloat16 where the processor is fast at it, unless
            the environment variable ``LINOCUT_DTYPE`` says which.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold Linocut weights, or for an unknown dtype.

    Example:
        >>> import linocut
        >>> import numpy as np
        >>> image = np.zeros((96, 128, 3), np.uint8)  # or a path: "photo.jpg"
        >>> image[24:72, 32:80] = (200, 80, 40)
        >>> session = linocut.load().open(image)
        >>> mask = session.click(56, 48)
        >>> mask.array.shape
        (96, 128)
    """
    return Segmenter(load_net(bundled_path() if weights is None else weights), dtype=dtype)


def bundled_path(name: str = BUNDLED) -> Path:
    """Weights that ship with the package, the segmenter's unless another file is named."""
    return Path(str(resources.files("linocut") / "weights" / name))
