"""Count the confusion matrix of two 4096² maps of bytes beside torchmetrics, scikit-learn and NumPy's bincount.

    python -m benchmarks.metrics

Maps of two kinds: a real segmentation (of a photograph that ships with Linocut, enlarged) with a prediction that is
coarser and shifted, and random labels, which no shortcut for runs of equal pairs helps with. The floor is reading both
arrays once, with NumPy's maximum over 64-bit words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import Contender, Timing, alternate, arguments, command, ratio
from benchmarks.report import Goal, Report, machine, plot_bars, table, write
from linocut.metrics import ConfusionMatrix

SIDE = 4096
CLASSES = (2, 150)
OURS = "Linocut"
FLOOR = "floor: read both arrays"
BINCOUNT, BYTES = "NumPy bincount", "NumPy bincount, 16-bit codes"
TORCHMETRICS, UNCHECKED = "torchmetrics", "torchmetrics, validate_args=False"
SCIKIT_LEARN = "scikit-learn"
PEERS = (BINCOUNT, BYTES, TORCHMETRICS, UNCHECKED, SCIKIT_LEARN)
SLOW_RUNS = 3

Map = NDArray[np.uint8]
# The sample whose label map is enlarged: two classes, and one with as many labels as the samples have.
SAMPLES = {2: "coffee", 150: "nuclei-fluorescence"}


def real_pair(num_classes: int, side: int) -> tuple[Map, Map]:
    """Prediction and target made of a sample's labels.

    The labels are spread over the classes. The prediction is the target at an eighth of the resolution and enlarged
    again, 6 pixels to the right, with one in 200 of its squares of 16² pixels of a random class.

    Args:
        num_classes: 2 or 150.
        side: height and width, a multiple of 16.

    Returns:
        Two uint8 maps.
    """
    with (files("linocut") / "samples" / f"{SAMPLES[num_classes]}-labels.png").open("rb") as file:
        small = np.array(Image.open(file))
    rng = np.random.default_rng(0)
    names = rng.permutation(num_classes)[: int(small.max()) + 1].astype(np.uint8)
    target = _resized(names[small], side)
    prediction = np.roll(_resized(_resized(names[small], side // 8), side), 6, axis=1)
    wrong = rng.random((side // 16, side // 16)) < 1 / 200
    noise = rng.integers(0, num_classes, wrong.shape).astype(np.uint8)
    return np.where(_resized(wrong.astype(np.uint8), side) == 1, _resized(noise, side), prediction), target


def _resized(labels: Map, side: int) -> Map:
    return np.array(Image.fromarray(labels).resize((side, side), Image.Resampling.NEAREST))


def noise_pair(num_classes: int, side: int) -> tuple[Map, Map]:
    """Two maps of independent random labels, uint8."""
    first, second = np.random.default_rng(1).integers(0, num_classes, (2, side, side)).astype(np.uint8)
    return first, second


PAIRS: dict[str, Callable[[int, int], tuple[Map, Map]]] = {"real": real_pair, "noise": noise_pair}


def linocut(prediction: Map, target: Map, num_classes: int) -> NDArray[np.integer]:
    """Ours, from an empty matrix to the table of counts."""
    matrix = ConfusionMatrix(num_classes)
    matrix.update(prediction, target)
    return matrix.matrix


def bincount(prediction: Map, target: Map, num_classes: int) -> NDArray[np.integer]:
    """The recipe of most evaluation scripts, `fast_hist` of FCN."""
    codes = num_classes * target.ravel().astype(np.int64) + prediction.ravel()
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def bincount_bytes(prediction: Map, target: Map, num_classes: int) -> NDArray[np.integer]:
    """The same with codes of 16 bits, the fastest that NumPy offers here."""
    codes = target.ravel().astype(np.uint16) * np.uint16(num_classes) + prediction.ravel()
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def torchmetrics(prediction: Map, target: Map, num_classes: int, *, validate_args: bool = True) -> NDArray[np.integer]:
    """Its functional form, on tensors that share the arrays' memory."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    tensors = torch.from_numpy(prediction), torch.from_numpy(target)
    counts: NDArray[np.integer] = multiclass_confusion_matrix(
        *tensors, num_classes=num_classes, validate_args=validate_args
    ).numpy()
    return counts


def scikit_learn(prediction: Map, target: Map, num_classes: int) -> NDArray[np.integer]:
    """Its confusion matrix of flat arrays."""
    from sklearn.metrics import confusion_matrix

    counts: NDArray[np.integer] = confusion_matrix(target.ravel(), prediction.ravel(), labels=np.arange(num_classes))
    return counts


def read_both(prediction: Map, target: Map, _: int) -> tuple[object, object]:
    """Read every word of both arrays."""
    return prediction.view(np.uint64).max(), target.view(np.uint64).max()


CONTENDERS: dict[str, Callable[[Map, Map, int], object]] = {
    OURS: linocut,
    FLOOR: read_both,
    BINCOUNT: bincount,
    BYTES: bincount_bytes,
    TORCHMETRICS: torchmetrics,
    UNCHECKED: partial(torchmetrics, validate_args=False),
    SCIKIT_LEARN: scikit_learn,
}
SLOW = (TORCHMETRICS, SCIKIT_LEARN)


def row(name: str, kind: str, num_classes: int) -> str:
    """A row's name."""
    return f"{name}, {num_classes} classes, {kind}"


def check(pair: tuple[Map, Map], num_classes: int) -> None:
    """All count the same.

    Raises:
        ValueError: if one counts differently.
    """
    expected = bincount(*pair, num_classes)
    for name in (OURS, *PEERS):
        if not np.array_equal(expected, CONTENDERS[name](*pair, num_classes)):
            raise ValueError(f"{name} counts differently at {num_classes} classes")


def contenders(*, only_peers: bool) -> list[Contender]:
    """One for each way, kind of map and number of classes."""
    rows = []
    for num_classes in CLASSES:
        for kind, make in PAIRS.items():
            check(make(num_classes, 512), num_classes)
            pair = make(num_classes, SIDE)
            for name, count in CONTENDERS.items():
                if name == OURS and only_peers:
                    continue
                run = partial(count, *pair, num_classes)
                limit = SLOW_RUNS if name in SLOW else None
                rows.append(Contender(row(name, kind, num_classes), run, limit=limit))
    return rows


def known_difference() -> dict[str, float]:
    """MIoU of two images of four pixels: of one matrix for both, and as torchmetrics' `segmentation.MeanIoU` has it.

    The target is 0 0 1 1 and 0 0 0 0, the prediction 0 0 1 0 and 0 0 0 1. Over both images the classes' IoUs are 5 / 7
    and 1 / 3, their mean 11 / 21. torchmetrics averages the images' means, (2 / 3 + 1 / 2) / 2 and (3 / 4 + 0) / 2, so
    an image in which a class is rare weighs as much as all others (its issue 2558).
    """
    from torchmetrics.segmentation import MeanIoU

    prediction, target = np.array([[0, 0, 1, 0], [0, 0, 0, 1]]), np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    ours = ConfusionMatrix(2)
    ours.update(prediction, target)
    theirs = MeanIoU(num_classes=2, input_format="index")
    theirs.update(torch.from_numpy(prediction[:, None]), torch.from_numpy(target[:, None]))
    return {"Linocut": ours.miou, "torchmetrics segmentation.MeanIoU": float(theirs.compute())}


def _goals(timings: dict[str, Timing]) -> list[Goal]:
    goals = []
    for num_classes in CLASSES:
        for kind in PAIRS:
            ours = row(OURS, kind, num_classes)
            where = f"{num_classes} classes, {kind}"
            for names, least in (((TORCHMETRICS, UNCHECKED), 10.0), ((SCIKIT_LEARN,), 10.0), ((BINCOUNT, BYTES), 3.0)):
                what = f"{where}: {names[0]}'s CPU time over ours" + (", its faster form" if len(names) > 1 else "")
                # Fresh pages of memory, which peers need many of, cost as the machine pleases: so without them too.
                for kernel, added in ((True, ""), (False, ", without the kernel's share")):
                    times = [ratio(timings, row(name, kind, num_classes), ours, kernel=kernel) for name in names]
                    known = [value for value in times if value is not None]
                    goals.append(Goal(what + added, least, min(known) if known else None, at_least=True))
            if num_classes == min(CLASSES):
                goals.append(
                    Goal(
                        f"{where}: ours over reading both arrays",
                        2,
                        ratio(timings, ours, row(FLOOR, kind, num_classes)),
                    )
                )
    return goals


_NOTES = (
    "Both maps are uint8; every contender starts from them and ends with the table of counts. All agree on the counts.",
    "Real: the labels of a photograph that ships with Linocut, enlarged; the prediction is coarser, shifted, and wrong "
    "in squares. Noise: independent random labels, the worst case for what counts runs, and no segmentation.",
    "Up to four classes are counted by comparing with all sixteen pairs; more by a table of all pairs of bytes, "
    "stretches of 64 equal pairs at a stroke.",
    "torchmetrics with validate_args=False and NumPy's codes of 16 bits are faster than their usual forms; the goals "
    "compare with the faster one. Neither of them checks its labels then; Linocut always does.",
    "The floor is NumPy's maximum of both arrays, read as 64-bit words.",
    "The two MIoUs differ because one is read off a matrix of both images and the other is a mean of two images' means "
    "(torchmetrics' issue 2558).",
)


def main() -> None:
    """Measure, then write metrics.json, metrics.md and metrics.png."""
    options = arguments(__doc__ or "", rounds=5).parse_args()
    torch.set_num_threads(options.threads)
    description = machine(options.threads)
    timings = alternate(contenders(only_peers=options.only_peers), rounds=options.rounds)
    difference = known_difference()
    report = Report(
        name="metrics",
        title="Counting a confusion matrix of 4096² pixels",
        command=command("benchmarks.metrics", sys.argv[1:]),
        timings=list(timings.values()),
        goals=_goals(timings),
        notes=_NOTES,
        sections=[table(["MIoU of two images of four pixels", ""], [[n, f"{v:.4f}"] for n, v in difference.items()])],
        extra={"known_difference": difference},
    )
    write(report, options.out, description)
    real = [Timing(t.name.removesuffix(", real"), t.cpu, t.system, t.wall) for t in report.timings if "real" in t.name]
    plot_bars(real, "Confusion matrix, 4096²", options.out / "metrics.png")


if __name__ == "__main__":
    main()
