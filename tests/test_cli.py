"""The command line as a person uses it: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

import linocut
from linocut.cli.app import app
from linocut.data.overlay import POSITIVE
from linocut.engine import train as engine
from linocut.metrics.interaction import iou
from linocut.vision.options import EverythingOptions
from linocut.vision.prompts import Prompt

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2

WIDTH, HEIGHT = 40, 30
QUALITY = {"stability_score": 0.8, "point_coords": [[1.5, 2.5]]}


@dataclass
class Mask:
    array: np.ndarray
    score: float = 0.875
    stability: float = 0.96

    @property
    def area(self) -> int:
        return int(self.array.sum())

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        rows, columns = np.nonzero(self.array)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    def rle(self) -> dict[str, Any]:
        rle = coco_mask.encode(np.asfortranarray(self.array.astype(np.uint8)))
        return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


@dataclass
class Session:
    """A click cuts the pixels of its colour, a negative click removes them, a box cuts itself."""

    image: np.ndarray
    log: list[Any]
    mask: np.ndarray = field(init=False)
    prompt: Prompt = field(default_factory=Prompt)

    def __post_init__(self) -> None:
        self.mask = np.zeros(self.image.shape[:2], bool)

    def click(self, x: float, y: float, positive: bool = True) -> Mask:
        self.log.append((x, y, positive))
        points, labels = (*self.prompt.points, (x + 0.5, y + 0.5)), (*self.prompt.labels, positive)
        self.prompt = dataclasses.replace(self.prompt, points=points, labels=labels)
        same = (self.image == self.image[int(y), int(x)]).all(axis=2)
        self.mask = self.mask | same if positive else self.mask & ~same
        return Mask(self.mask)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Mask:
        self.log.append((x0, y0, x1, y1))
        self.mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        return Mask(self.mask)


@dataclass
class Everything:
    mask: Mask

    @property
    def label_map(self) -> np.ndarray:
        return self.mask.array.astype(np.int32)

    def records(self) -> list[dict[str, Any]]:
        x0, y0, x1, y1 = self.mask.bbox
        box = [x0, y0, x1 - x0, y1 - y0]
        return [{"segmentation": self.mask.rle(), "area": self.mask.area, "bbox": box, "predicted_iou": 0.9, **QUALITY}]


@dataclass
class Model:
    """Stands for the Segmenter; remembers how it was loaded and asked."""

    loads: list[Any] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None

    def open(self, image: np.ndarray) -> Session:
        if self.error is not None:
            raise self.error
        return Session(image, self.log)

    def encode(self, image: np.ndarray) -> np.ndarray:
        return image

    def decode(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> list[Mask]:
        (prompt,) = prompts
        session = Session(embedding, self.log)
        return [session.box(*prompt.box) if prompt.box else session.click(*prompt.points[0])]

    def everything(self, image: np.ndarray, **options: Any) -> Everything:
        self.options.append(options)
        return Everything(Mask((image == image[10, 10]).all(axis=2)))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()

    def load(weights: Path | None = None) -> Model:
        model.loads.append(weights)
        return model

    # Set in the dict, for looking the lazy name up first would import PyTorch.
    monkeypatch.setitem(vars(linocut), "load", load)
    return model


def draw() -> np.ndarray:
    """A red and a blue square on grey."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[5:25, 5:15] = (255, 0, 0)
    image[5:25, 20:38] = (0, 0, 255)
    return image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(draw()).save(path)
    return path


@dataclass
class Ran:
    code: int
    out: str
    err: str


def run(*args: str | Path) -> Ran:
    """Run a command line; an exception that got out of it is an error of the test."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """The exit code, and one line on stderr with these words in it."""
    assert ran.code == code, ran
    assert re.fullmatch(r"linocut: error: [^\n]+\n", ran.err), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


class TestProcess:
    """A few command lines in a process of their own."""

    def test_version(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "linocut", "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"linocut {linocut.__version__}\n"

    @pytest.mark.parametrize("command", [[], ["segment"], ["everything"], ["train"], ["eval"], ["demo"]])
    def test_help_imports_nothing_heavy(self, command: list[str]) -> None:
        code = (
            "import sys\n"
            "from linocut.cli import main\n"
            "try:\n    main()\n"
            "finally:\n"
            "    heavy = {'torch', 'cv2', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)\n"
            "    print('heavy:', sorted(heavy))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "heavy: []" in done.stdout

    def test_wrong_usage(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "linocut", "segment", tmp_path / "none.png", "-p", "1,1", "-o", "m.png"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert_refused(Ran(done.returncode, done.stdout, done.stderr), 2, "none.png does not exist")

    def test_a_broken_image(self, tmp_path: Path) -> None:
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
        command = [
            sys.executable,
            "-m",
            "linocut",
            "segment",
            tmp_path / "broken.jpg",
            "-p",
            "1,1",
            "-o",
            tmp_path / "m.png",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert_refused(Ran(done.returncode, done.stdout, done.stderr), 1, "broken.jpg")
        assert not (tmp_path / "m.png").exists()


class TestApp:
    def test_help_names_the_commands_and_shows_examples(self) -> None:
        ran = run("--help")
        assert ran.code == 0
        for word in ("segment", "everything", "train", "eval", "demo", "Examples", "-o mask.png", "Exit codes"):
            assert word in ran.out

    def test_no_command_shows_help_and_is_wrong_usage(self) -> None:
        ran = run()
        assert ran.code == 2
        assert "Usage" in ran.out

    def test_an_unknown_command(self) -> None:
        assert_refused(run("segmet"), 2, "segmet", "segment")

    def test_an_unknown_option(self, photo: Path) -> None:
        assert_refused(run("segment", photo, "--pint", "1,2"), 2, "--pint")

    @pytest.mark.parametrize("place", ["before", "after"])
    def test_debug_shows_the_traceback(self, model: Model, photo: Path, tmp_path: Path, place: str) -> None:
        model.error = RuntimeError("the model broke")
        command = ["segment", photo, "-p", "8,8", "-o", tmp_path / "m.png"]
        plain = run(*command)
        assert_refused(plain, 1, "RuntimeError: the model broke", "--debug")
        ran = run("--debug", *command) if place == "before" else run(*command, "--debug")
        assert ran.code == 1
        assert "Traceback" in ran.err
        assert ran.err.endswith(plain.err)


class TestSegment:
    @pytest.mark.usefixtures("model")
    def test_one_point(self, photo: Path, tmp_path: Path) -> None:
        ran = run("segment", photo, "--point", "8,8", "-o", tmp_path / "new" / "mask.png")
        assert (ran.code, ran.err) == (0, "")
        assert "200 pixels, predicted IoU 0.88" in ran.out
        with Image.open(tmp_path / "new" / "mask.png") as mask:
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.asarray(mask), (draw() == (255, 0, 0)).all(axis=2) * 255)

    def test_every_prompt_reaches_the_model(self, model: Model, photo: Path, tmp_path: Path) -> None:
        out = tmp_path / "mask.png"
        ran = run(
            *("segment", photo, "-p", "8,8", "--point", "25.5,10", "-n", "0,0"),
            *("--box", "2,3,40,30", "-o", out),
        )
        assert ran.code == 0
        assert model.log == [(2, 3, 40, 30), (8, 8, True), (25.5, 10, True), (0, 0, False)]
        with Image.open(out) as mask:
            assert int((np.asarray(mask) == 255).sum()) == 200 + 360

    @pytest.mark.usefixtures("model")
    def test_json_and_overlay(self, photo: Path, tmp_path: Path) -> None:
        ran = run("segment", photo, "-p", "8,8", "--json", tmp_path / "m.json", "--overlay", tmp_path / "o.png")
        assert ran.code == 0
        record = json.loads((tmp_path / "m.json").read_text())
        assert record["prompt"] == {"points": [[8, 8]], "negative": [], "box": None}
        assert (record["area"], record["bbox"], record["score"]) == (200, [5, 5, 15, 25], 0.875)
        np.testing.assert_array_equal(coco_mask.decode(record["segmentation"]), (draw() == (255, 0, 0)).all(axis=2))
        with Image.open(tmp_path / "o.png") as overlay:
            pixels = np.asarray(overlay)
        assert tuple(pixels[8, 8]) == POSITIVE, "the click"
        assert (pixels[20, 8] != draw()[20, 8]).any(), "the object"
        assert (pixels[0, 0] == draw()[0, 0]).all(), "the rest"

    def test_weights_are_passed_on(self, model: Model, photo: Path, tmp_path: Path) -> None:
        weights = tmp_path / "w.safetensors"
        weights.write_bytes(b"")
        run("segment", photo, "-p", "8,8", "-o", tmp_path / "m.png", "--weights", weights)
        run("segment", photo, "-p", "8,8", "-o", tmp_path / "m.png")
        assert model.loads == [weights, None]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["-o", "m.png"], ["at least one --point or a --box"]),
            (["-n", "3,3", "-o", "m.png"], ["at least one --point or a --box"]),
            (["-p", "8,8"], ["at least one output"]),
            (["-p", "8,8", "-o", "m.jpg"], ["PNG", "m.jpg"]),
            (["-p", "8,8", "-o", "m.png", "--overlay", "o.jpg"], ["PNG", "o.jpg"]),
            (["-p", "8", "-o", "m.png"], ["expected X,Y in pixels, such as 320,240, got '8'"]),
            (["-p", "a,b", "-o", "m.png"], ["--point", "got 'a,b'"]),
            (["-p", "1,2,3", "-o", "m.png"], ["got '1,2,3'"]),
            (["-p", "nan,2", "-o", "m.png"], ["got 'nan,2'"]),
            (["-p", "inf,2", "-o", "m.png"], ["got 'inf,2'"]),
            (["-p", "40,8", "-o", "m.png"], ["point 40,8 lies outside the image", "40 x 30"]),
            (["-p", "8,30", "-o", "m.png"], ["point 8,30 lies outside"]),
            (["-p", "-1,8", "-o", "m.png"], ["point -1,8 lies outside"]),
            (["-p", "8,8", "-n", "99,8", "-o", "m.png"], ["point 99,8 lies outside"]),
            (["-b", "1,2,3", "-o", "m.png"], ["expected X0,Y0,X1,Y1", "got '1,2,3'"]),
            (["-b", "9,2,3,8", "-o", "m.png"], ["X0 < X1", "9,2,3,8"]),
            (["-b", "0,0,41,30", "-o", "m.png"], ["box 0,0,41,30 reaches outside"]),
            (["-p", "8,8", "-o", "m.png", "--weights", "none.safetensors"], ["none.safetensors does not exist"]),
        ],
    )
    def test_wrong_usage(
        self,
        model: Model,
        photo: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        options: list[str],
        words: list[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert_refused(run("segment", photo, *options), 2, *words)
        assert model.log == []
        assert [path.name for path in tmp_path.iterdir()] == ["photo.png"], "nothing was written"

    @pytest.mark.usefixtures("model")
    def test_a_folder_is_no_image(self, tmp_path: Path) -> None:
        assert_refused(run("segment", tmp_path, "-p", "1,1", "-o", tmp_path / "m.png"), 2, "is a folder")

    @pytest.mark.usefixtures("model")
    def test_an_output_that_cannot_be_written(self, photo: Path) -> None:
        assert_refused(run("segment", photo, "-p", "8,8", "-o", photo / "m.png"), 1, str(photo))


class TestEverything:
    @pytest.fixture
    def photos(self, tmp_path: Path) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        for name in ("a.png", "b.jpg", "c.png"):
            Image.fromarray(draw()).save(folder / name)
        return folder

    def test_a_folder(self, model: Model, photos: Path, tmp_path: Path) -> None:
        ran = run("everything", photos, "-o", tmp_path / "out")
        assert ran.code == 0
        assert "3 cut, 0 done before, 0 failed" in ran.out
        assert [EverythingOptions(**options) for options in model.options] == [
            EverythingOptions(output_mode="coco_rle")
        ] * 3
        coco = COCO(str(tmp_path / "out" / "annotations.json"))
        assert len(coco.getImgIds()) == len(coco.getAnnIds()) == 3
        with Image.open(tmp_path / "out" / "labels" / "a.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), (draw() == (255, 0, 0)).all(axis=2))

    @pytest.mark.usefixtures("model")
    def test_a_restart_does_only_what_is_left(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run("everything", photos, "-o", out)
        (out / "coco" / "b.json").unlink()
        ran = run("everything", photos, "-o", out)
        assert "1 cut, 2 done before, 0 failed" in ran.out
        assert "0 cut, 3 done before, 0 failed" in run("everything", photos, "-o", out).out
        assert "3 cut" in run("everything", photos, "-o", out, "--points-per-side", "8").out

    @pytest.mark.usefixtures("model")
    def test_a_bad_image_is_reported_at_the_end(self, photos: Path, tmp_path: Path) -> None:
        (photos / "a.png").write_bytes(b"\x89PNG broken")
        ran = run("everything", photos, "-o", tmp_path / "out")
        assert ran.code == 1
        assert "2 cut, 0 done before, 1 failed" in ran.out
        assert [line for line in ran.err.splitlines() if "error" in line] == [ran.err.splitlines()[-1]]
        assert "a.png" in ran.err.splitlines()[-1]
        assert "Traceback" not in ran.err
        assert "Traceback" in run("everything", photos, "-o", tmp_path / "out", "--debug").err

    @pytest.mark.usefixtures("model")
    def test_one_image(self, photo: Path, tmp_path: Path) -> None:
        assert run("everything", photo, "-o", tmp_path / "out").code == 0
        assert (tmp_path / "out" / "overlays" / "photo.png").is_file()

    def test_every_option_reaches_the_model(self, model: Model, photo: Path, tmp_path: Path) -> None:
        given = {
            "points_per_side": 16,
            "points_per_batch": 32,
            "pred_iou_thresh": 0.5,
            "stability_score_thresh": 0.25,
            "stability_score_offset": 0.75,
            "box_nms_thresh": 0.125,
            "mask_nms_thresh": 0.0625,
            "crop_n_layers": 1,
            "crop_nms_thresh": 0.625,
            "crop_overlap_ratio": 0.375,
            "crop_n_points_downscale_factor": 2,
            "min_mask_region_area": 20,
            "output_mode": "uncompressed_rle",
        }
        flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        assert run("everything", photo, "-o", tmp_path / "out", *flags).code == 0
        assert model.options == [given]
        names = {field.name for field in dataclasses.fields(EverythingOptions)}
        assert names == {*given, "point_grids"}, "an option without a flag"

    def test_help_tells_the_defaults_of_the_library(self) -> None:
        text = re.sub(r"[│\s]+", " ", run("everything", "--help").out)
        for field_ in dataclasses.fields(EverythingOptions):
            if field_.name not in ("point_grids", "output_mode"):
                shown = re.search(rf"--{field_.name.replace('_', '-')} N .*?\[default: \(?([\d.]+)\)?\]", text)
                assert shown is not None, field_.name
                assert float(shown[1]) == pytest.approx(field_.default, abs=5e-4), field_.name

    def test_point_grids_come_from_a_file(self, model: Model, photo: Path, tmp_path: Path) -> None:
        grids = tmp_path / "grids.json"
        grids.write_text("[[[0.25, 0.5], [0.75, 0.5]], [[0.5, 0.5]]]")
        command = ["everything", photo, "-o", tmp_path / "out", "--point-grids", grids]
        assert run(*command, "--crop-n-layers", "1").code == 0
        assert model.options[0]["points_per_side"] is None
        first, second = model.options[0]["point_grids"]
        np.testing.assert_array_equal(first, [[0.25, 0.5], [0.75, 0.5]])
        assert second.shape == (1, 2)
        assert_refused(run(*command), 2, "point_grids must hold one grid a layer, 1 of them, got 2")
        assert_refused(run(*command, "--points-per-side", "4"), 2, "--points-per-side", "--point-grids")

    @pytest.mark.usefixtures("model")
    @pytest.mark.parametrize("text", ["[[[0.5]]]", "[[[0.5, 2]]]", "[]", "{", "[[]]", "[0.5]", '[[["a", "b"]]]', "3"])
    def test_bad_point_grids(self, photo: Path, tmp_path: Path, text: str) -> None:
        grids = tmp_path / "grids.json"
        grids.write_text(text)
        ran = run("everything", photo, "-o", tmp_path / "out", "--point-grids", grids)
        assert_refused(ran, 2, "--point-grids", "lists of [x, y] in 0 … 1")

    @pytest.mark.usefixtures("model")
    def test_wrong_usage(self, photo: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        assert_refused(run("everything", tmp_path / "none", "-o", tmp_path / "out"), 2, "none does not exist")
        assert_refused(run("everything", empty, "-o", tmp_path / "out"), 2, "has no image")
        assert_refused(run("everything", photo), 2, "--out")
        assert_refused(run("everything", photo, "-o", "out", "--pred-iou-thresh", "88"), 2, "--pred-iou-thresh")
        assert_refused(run("everything", tmp_path, "-o", tmp_path), 2, "must not be the input folder")


class TestEval:
    @pytest.fixture
    def pack(self, tmp_path: Path) -> Path:
        folder = tmp_path / "drawn"
        labels = np.zeros((60, 80), np.uint8)
        labels[5:45, 5:25], labels[5:45, 40:70] = 1, 2
        for sub, pixels in (("images", np.stack([labels * 100] * 3, axis=2)), ("labels", labels)):
            (folder / sub / "test").mkdir(parents=True)
            Image.fromarray(pixels).save(folder / sub / "test" / "a.png")
        rows = [
            ["split", "id", "image", "labels", "width", "height", "objects", "type"],
            ["test", "a", "images/test/a.png", "labels/test/a.png", 80, 60, 2, "drawn"],
        ]
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        (folder / "meta.json").write_text(
            json.dumps({"name": "drawn", "kind": "instance", "background": 0, "ignore": []})
        )
        return folder

    @pytest.mark.usefixtures("model")
    def test_one_pack_gives_one_object(self, pack: Path, tmp_path: Path) -> None:
        ran = run("eval", pack, "--split", "test", "--json", tmp_path / "new" / "e.json")
        assert ran.code == 0
        assert "drawn" in ran.out
        assert "NoC@90" in ran.out
        figures = json.loads((tmp_path / "new" / "e.json").read_text())
        assert (figures["noc90"], figures["iou1"], figures["iou_box"], figures["objects"]) == (1, 1, 1, 2)

    @pytest.mark.usefixtures("model")
    def test_several_packs_give_a_list(self, pack: Path, tmp_path: Path) -> None:
        files = [tmp_path / "e.json", tmp_path / "e.md", tmp_path / "e.png"]
        ran = run(
            *("eval", pack, pack, "--max-objects", "1", "--max-clicks", "4"),
            *("--json", files[0], "--markdown", files[1], "--plot", files[2]),
        )
        assert ran.code == 0
        figures = json.loads(files[0].read_text())
        assert [(f["objects"], f["max_clicks"], f["iou5"]) for f in figures] == [(1, 4, None)] * 2
        assert files[1].read_text().count("| drawn | test | 1 |") == 2
        with Image.open(files[2]) as plot:
            assert plot.format == "PNG"

    def test_wrong_usage(self, model: Model, pack: Path, tmp_path: Path) -> None:
        assert_refused(run("eval", tmp_path / "none"), 2, "none", "not a pack")
        assert_refused(run("eval", pack, tmp_path), 2, "not a pack")
        assert_refused(run("eval", pack, "--split", "val"), 2, "no split 'val'; it has test")
        assert_refused(run("eval", pack, "--max-clicks", "0"), 2, "--max-clicks")
        assert_refused(run("eval"), 2, "PACK_DIR")
        assert_refused(run("eval", pack, "--json", tmp_path), 2, "--json", "is a folder; name a file in it")
        assert_refused(run("eval", pack, "--plot", tmp_path / "curve.xyz"), 2, "--plot", "must end in one of")
        assert model.loads == [], "all that is wrong is found before the model is loaded"


class TestTrain:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Stands for the training loop: keeps what it is asked, and reports two steps."""
        asked: list[Any] = []

        def train(config: Any, *, resume: bool, report: Any) -> Path:
            asked.append((config, resume))
            report(engine.Progress(1, 2, 1e-3, 0.75, 0.5, 0.6))
            report(engine.Progress(2, 2, 1e-3, 0.7, 0.5, 0.6, 0.625, 0.375, 0.4375))
            return Path(config.out) / "weights.safetensors"

        monkeypatch.setattr(engine, "train", train)
        return asked

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        (tmp_path / "data" / "pack").mkdir(parents=True)
        (tmp_path / "data" / "pack" / "manifest.csv").write_text("split\n")
        return tmp_path / "data"

    def test_settings_that_are_not_given_keep_their_defaults(self, asked: list[Any], data: Path) -> None:
        ran = run("train", "--data", data, "--out", "runs/a", "--steps", "2")
        assert ran.code == 0
        assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", steps=2), False)]
        assert ran.out == "weights: runs/a/weights.safetensors\n"
        assert "step 2: loss 0.700" in ran.err
        assert "val loss 0.625, IoU after one click 0.375, after two 0.438" in ran.err

    def test_every_setting_can_be_given(self, asked: list[Any], data: Path) -> None:
        given: dict[str, Any] = {
            field.name: {"int": 7, "float": 0.25}.get(str(field.type), "gru")
            for field in dataclasses.fields(engine.TrainConfig)
            if field.name not in ("data", "out")
        }
        flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        ran = run("train", "--data", data, "--out", "runs/a", "--resume", *flags)
        assert ran.code == 0, ran.err
        assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", **given), True)]

    def test_wrong_usage(self, asked: list[Any], data: Path, tmp_path: Path) -> None:
        assert_refused(run("train", "--data", tmp_path / "none", "--out", "runs/a"), 2, "--data", "holds no pack")
        assert_refused(run("train", "--data", data), 2, "--out")
        assert_refused(run("train", "--data", data, "--out", "runs/a", "--steps", "0"), 2, "--steps")
        assert_refused(run("train", "--data", data, "--out", "runs/a", "--average", "1"), 2, "average must be")
        assert asked == []


def test_demo_passes_the_model_and_the_folder_on(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("linocut.demo.run_demo", lambda *given: asked.append(given))
    assert run("demo", "-o", tmp_path / "pictures").code == 0
    assert asked == [(model, tmp_path / "pictures")]


class TestBundledModel:
    """The commands with nothing replaced: the weights and a sample that ship with the package."""

    FOLDER = Path(linocut.__file__).parent / "samples"

    @pytest.fixture
    def nuclei(self) -> dict[str, Any]:
        """The entry of the fluorescence sample: its file, a click on a nucleus and the truth."""
        entries = json.loads((self.FOLDER / "samples.json").read_text())
        return next(entry for entry in entries if entry["file"] == "nuclei-fluorescence.png")

    def test_a_click_cuts_the_nucleus(self, nuclei: dict[str, Any], tmp_path: Path) -> None:
        x, y = nuclei["click"]
        ran = run("segment", self.FOLDER / nuclei["file"], "--point", f"{x},{y}", "-o", tmp_path / "mask.png")
        assert ran.code == 0, ran.err
        with Image.open(self.FOLDER / nuclei["labels"]) as labels, Image.open(tmp_path / "mask.png") as mask:
            numbers, cut = np.asarray(labels), np.asarray(mask) == 255
        assert iou(cut, numbers == numbers[y, x]) > 0.7

    def test_everything_agrees_with_itself(self, nuclei: dict[str, Any], tmp_path: Path) -> None:
        lenient = ("--points-per-side", "8", "--pred-iou-thresh", "0.5", "--stability-score-thresh", "0.5")
        ran = run("everything", self.FOLDER / nuclei["file"], "-o", tmp_path, *lenient)
        assert ran.code == 0, ran.err
        coco = COCO(str(tmp_path / "annotations.json"))
        with Image.open(tmp_path / "labels" / "nuclei-fluorescence.png") as labels:
            numbers = np.asarray(labels)
        assert len(coco.getAnnIds()) == numbers.max() > 3
        for annotation in coco.loadAnns(coco.getAnnIds()):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"]
            assert not (numbers == annotation["id"])[~mask].any(), "a label lies inside its mask"
