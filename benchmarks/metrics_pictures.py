"""The pictures of docs/metrics.md: what each metric does not see, and a page of the report.

    python -m benchmarks.metrics_pictures

The report is that of the bundled samples, each object cut by one click at its innermost pixel. Its picture needs
Chromium; it is left as it is where there is none.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.metrics_samples import CLASSES, FAULTS, classes_of, names, objects_of, photo_of
from linocut.data.files import atomic_path
from linocut.data.images import open_image
from linocut.data.overlay import write_png
from linocut.metrics import BoundaryScores, ConfusionMatrix, InstanceMatching

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PANELS = (
    ("chelsea", "nothing found", "the eyes are missed"),
    ("nuclei-fluorescence", "the smaller half missed", "the smaller half is missed"),
    ("nuclei-fluorescence", "all drawn 3 pixels too wide", "all are 3 pixels too wide"),
    ("nuclei-fluorescence", "those that touch made one", "those that touch are one"),
)
MISSED, FALSE, JOINED = (38, 110, 235), (245, 130, 0), (222, 0, 110)
LOW = 0.7


def figures(truth: NDArray[np.int32], said: NDArray[np.int32]) -> dict[str, float]:
    """PA, MIoU, boundary F at 2 pixels and AP of objects 0 against objects 1."""
    matrix, edges, matching = ConfusionMatrix(2), BoundaryScores(2, tolerance=2), InstanceMatching()
    matrix.update(said > 0, truth > 0)
    edges.update(said > 0, truth > 0)
    matching.update(said, truth)
    objects = matching.compute()
    return {"PA": matrix.pa, "MIoU": matrix.miou, "boundary F": float(edges.compute().f[1]), "AP": objects.mean_ap}


def mistakes(name: str, truth: NDArray[np.int32], said: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The picture in grey, with what is missed blue, what is too much orange, and what is joined magenta."""
    grey = open_image(photo_of(name)).mean(axis=2, keepdims=True)
    picture = np.repeat(80 + 0.6 * grey, 3, axis=2).astype(np.uint8)
    picture[(truth > 0) & (said == 0)] = MISSED
    picture[(truth == 0) & (said > 0)] = FALSE
    for number in np.unique(said[said > 0]).tolist():
        if len(np.unique(truth[(said == number) & (truth > 0)])) > 1:
            picture[(said == number) & (truth > 0)] = JOINED
    return picture


def draw_blindness(path: Path) -> None:
    """Four faults side by side, and under each what four metrics make of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, fault, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        truth = objects_of(name)
        said = FAULTS[fault](truth)
        axes.imshow(mistakes(name, truth, said), aspect="equal")
        axes.set_title(title, fontsize=12)
        axes.set_anchor("N")
        axes.set_axis_off()
        for place, (metric, value) in enumerate(figures(truth, said).items()):
            low = value < LOW
            style = {"color": "#b5400a" if low else "#222222", "weight": "bold" if low else "normal", "fontsize": 12}
            left, down = 0.02 + 0.62 * (place % 2), -0.1 - 0.12 * (place // 2)
            axes.text(left, down, f"{metric} {value:.2f}", transform=axes.transAxes, **style)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def click_everything(folder: Path) -> None:
    """Cut every object of the samples by one click, and write truths, predictions and names."""
    import linocut

    model = linocut.load()
    for name in names():
        truth, image = objects_of(name), open_image(photo_of(name))
        session = model.open(image)
        said = np.zeros_like(truth)
        for number in range(1, int(truth.max()) + 1):
            depth = cv2.distanceTransform(np.pad((truth == number).astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
            said[session.click(int(x), int(y)).array & (said == 0)] = number
            session.reset()
        for kind, objects in (("truth", truth), ("predictions", said)):
            write_png(folder / kind / f"{name}.png", classes_of(name, objects))
        (folder / "photos").mkdir(exist_ok=True)
        shutil.copy(photo_of(name), folder / "photos")
    (folder / "classes.json").write_text(json.dumps(CLASSES))


def photograph_report(path: Path) -> None:
    """The report of the bundled samples, as Chromium shows its beginning."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium: the picture of the report is left as it is")
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        click_everything(folder)
        words = ["predictions", "truth", "--classes", "classes.json", "--images", "photos", "-o", "report.html"]
        subprocess.run([sys.executable, "-m", "linocut", "metrics", *words], cwd=folder, check=True)
        picture = folder / "report.png"
        view = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1180,3000", f"--screenshot={picture}"]
        subprocess.run([browser, *view, (folder / "report.html").as_uri()], check=True, capture_output=True)
        with atomic_path(path) as temporary:
            two_columns(open_image(picture)).save(temporary, format="PNG", optimize=True)


def two_columns(page: NDArray[np.uint8]) -> Image.Image:
    """A tall page as two columns side by side, made smaller."""
    half = len(page) // 2
    pair = np.hstack([page[:half], page[half : 2 * half]])
    small = cv2.resize(pair, None, fx=0.62, fy=0.62, interpolation=cv2.INTER_AREA)
    return Image.fromarray(small).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def main() -> None:
    """Draw both pictures."""
    draw_blindness(IMAGES / "metrics-blind.png")
    photograph_report(IMAGES / "metrics-report.png")


if __name__ == "__main__":
    main()
