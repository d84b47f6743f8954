"""Which prediction belongs to which truth: files with the same name but for the ending."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linocut.data.labels import SUFFIXES, LabelMap, open_labels

_SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """A prediction and the truth, equally large.

    Attributes:
        name: what both are called: the path inside their folders, without the ending.
        prediction: the predicted labels.
        target: the true ones.
    """

    name: str
    prediction: LabelMap
    target: LabelMap


@dataclass(frozen=True)
class Pairing:
    """Pairs, and the files that have no partner, all by name.

    Attributes:
        pairs: at least one.
        missing: truths without a prediction.
        extra: predictions without a truth.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def pair_files(prediction: Path, target: Path) -> Pairing:
    """Pair two files, or the files of two folders and the folders in them.

    Every file is opened and its size read, so that what is wrong is known before anything is counted.

    Args:
        prediction: a label map, or a folder of such.
        target: the same of the truth. In folders those files count whose ending is in
            `linocut.data.labels.SUFFIXES`; hidden ones do not.

    Raises:
        FileNotFoundError: if one of them does not exist.
        ImageError: if a file is no label map.
        ValueError: if one is a file and the other a folder, a folder has no label map or two of one name, no names
            agree, or two files of a pair differ in size.
    """
    for path in (prediction, target):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    if prediction.is_dir() != target.is_dir():
        a, b = ("folder", "file") if prediction.is_dir() else ("file", "folder")
        raise ValueError(f"{prediction} is a {a} and {target} a {b}; compare two files or two folders")
    if not prediction.is_dir():
        return Pairing((_open_pair(target.stem, prediction, target),))
    predictions, targets = find_labels(prediction), find_labels(target)
    common = sorted(predictions.keys() & targets.keys())
    if not common:
        raise ValueError(
            f"no file of {prediction} has the name of one of {target}; there are {_some(predictions)} and"
            f" {_some(targets)}, but names must agree up to the ending"
        )
    return Pairing(
        tuple(_open_pair(name, predictions[name], targets[name]) for name in common),
        missing=tuple(sorted(targets.keys() - predictions.keys())),
        extra=tuple(sorted(predictions.keys() - targets.keys())),
    )


def find_labels(folder: Path) -> dict[str, Path]:
    """The label maps in a folder and the folders in it, by their path without the ending.

    Raises:
        ValueError: if there are none, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in inner.parts):
            continue
        if not path.is_file():
            continue
        name = inner.with_suffix("").as_posix()
        if name in found:
            raise ValueError(
                f"{found[name]} and {path} have one name, so it is not known which is meant; move one away"
            )
        found[name] = path
    if not found:
        raise ValueError(f"{folder} has no label map, no file that ends in one of {', '.join(SUFFIXES)}")
    return found


def _open_pair(name: str, prediction: Path, target: Path) -> Pair:
    """Two files that must be equally large.

    Raises:
        ImageError: if one is no label map.
        ValueError: if they differ in size.
    """
    pair = Pair(name, open_labels(prediction), open_labels(target))
    if (pair.prediction.height, pair.prediction.width) != (pair.target.height, pair.target.width):
        raise ValueError(
            f"{prediction} has {pair.prediction.size} pixels, but {target} has {pair.target.size}; labels are compared"
            " pixel by pixel, so bring the prediction to the size of the truth first, by nearest neighbour"
        )
    return pair


def _some(names: dict[str, Path]) -> str:
    """The first few names."""
    shown = ", ".join(repr(name) for name in list(names)[:_SHOWN])
    return f"{shown} …" if len(names) > _SHOWN else shown
