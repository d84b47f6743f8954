"""Folders: what is found, what a restart skips, what a bad image costs, and that every output is whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from linocut.data.images import open_image
from linocut.engine.batch import OutputError, Plan, plan_batch, run_batch

QUALITY = {"stability_score": 0.8, "point_coords": [[1.5, 2.5]]}
SETTINGS = {"options": {"points_per_side": 4}}


@dataclass
class Halves:
    """Two objects: the upper rows and the lower rows."""

    shape: tuple[int, int]

    @property
    def label_map(self) -> np.ndarray:
        labels = np.zeros(self.shape, np.int32)
        labels[: self.shape[0] // 2], labels[self.shape[0] // 2 :] = 1, 2
        return labels

    def records(self) -> list[dict[str, Any]]:
        records = []
        for value in (1, 2):
            mask = self.label_map == value
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            box = [float(v) for v in coco_mask.toBbox(rle)]
            rle["counts"] = rle["counts"].decode("ascii")
            records.append({"segmentation": rle, "area": int(mask.sum()), "bbox": box, "predicted_iou": 0.9, **QUALITY})
        return records


@dataclass
class Cutter:
    """Stands for the model; counts what it is asked."""

    cuts: int = 0
    fail_at: frozenset[int] = field(default_factory=frozenset)

    def cut(self, image: np.ndarray) -> Halves:
        self.cuts += 1
        if self.cuts in self.fail_at:
            raise RuntimeError("out of memory")
        return Halves(image.shape[:2])


def save(path: Path, width: int = 12, height: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (200, 120, 40)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save(folder / "b.jpg", 10, 6)
    save(folder / "a.png")
    save(folder / "trip" / "c.webp", 9, 4)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def todo(plan: Plan) -> list[str]:
    return [job.file_name for job in plan.todo]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestPlan:
    def test_finds_images_in_subfolders_in_order(self, photos: Path, out: Path) -> None:
        (photos / "notes.txt").write_text("not an image")
        save(photos / ".hidden.png")
        save(photos / ".trash" / "d.png")
        (photos / "folder.png").mkdir()
        save(photos / "UPPER.JPG")
        assert todo(plan_batch(photos, out, SETTINGS)) == ["UPPER.JPG", "a.png", "b.jpg", "trip/c.webp"]

    def test_the_outputs_are_not_inputs(self, photos: Path) -> None:
        out = photos / "cut"
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        plan = plan_batch(photos, out, SETTINGS)
        assert [job.file_name for job in plan.done] == ["a.png", "b.jpg", "trip/c.webp"]
        assert plan.todo == ()

    @pytest.mark.parametrize("stopped", [False, True])
    def test_the_outputs_of_other_runs_are_not_inputs(self, photos: Path, stopped: bool) -> None:
        for other in (photos / "cut2", photos / "trip" / "cut3", photos):
            run_batch(plan_batch(photos / "a.png", other, SETTINGS), Cutter().cut)
            if stopped:
                (other / "annotations.json").unlink()
        save(photos / "cut2" / "mine.png")
        expected = ["a.png", "b.jpg", "cut2/mine.png", "trip/c.webp"]
        assert todo(plan_batch(photos, photos / "cut", SETTINGS)) == expected

    def test_folders_that_only_have_such_names_are_inputs(self, photos: Path, out: Path) -> None:
        save(photos / "labels" / "d.png")
        save(photos / "coco" / "e.png")
        assert {"labels/d.png", "coco/e.png"} <= set(todo(plan_batch(photos, out, SETTINGS)))

    def test_the_output_folder_may_hold_the_input(self, photos: Path) -> None:
        assert todo(plan_batch(photos, photos.parent, SETTINGS)) == ["a.png", "b.jpg", "trip/c.webp"]

    @pytest.mark.parametrize("source", ["labels", "labels/a.png"])
    def test_an_image_is_not_written_over(self, tmp_path: Path, source: str) -> None:
        save(tmp_path / "labels" / "a.png")
        with pytest.raises(ValueError, match=r"the image .*a\.png would be written over; name another"):
            plan_batch(tmp_path / source, tmp_path, SETTINGS)

    def test_images_that_differ_in_suffix_alone_keep_apart(self, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "twins"
        for name in ("a.png", "A.jpg", "b.png", "c.jpg.png", "c.jpg"):
            save(folder / name)
        plan = plan_batch(folder, out, SETTINGS)
        outputs = {job.file_name: job.labels.name for job in plan.todo}
        assert outputs["b.png"] == "b.png"
        assert len({name.casefold() for name in outputs.values()}) == 5

    def test_one_image(self, photos: Path, out: Path) -> None:
        plan = plan_batch(photos / "b.jpg", out, SETTINGS)
        assert run_batch(plan, Cutter().cut) == ()
        assert set(contents(out)) == {"labels/b.png", "overlays/b.png", "coco/b.json", "annotations.json"}

    def test_a_folder_without_images(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty has no image; looked for \.bmp, \.gif, \.jpeg"):
            plan_batch(tmp_path / "empty", out, SETTINGS)

    def test_the_input_folder_as_output(self, photos: Path) -> None:
        with pytest.raises(ValueError, match="must not be the input folder"):
            plan_batch(photos, photos / "trip" / "..", SETTINGS)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
class TestOutputs:
    def test_labels_are_those_of_the_result(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        with Image.open(out / "labels" / "trip" / "c.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), Halves((4, 9)).label_map)
        with Image.open(out / "overlays" / "trip" / "c.png") as overlay:
            assert overlay.size == (9, 4)

    def test_each_record_is_coco(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        coco = COCO(str(out / "coco" / "b.json"))
        assert coco.loadImgs(1)[0]["file_name"] == "b.jpg"
        for annotation in coco.loadAnns(coco.getAnnIds()):
            assert annotation["predicted_iou"] == 0.9
            assert {name: annotation[name] for name in QUALITY} == QUALITY
            assert annotation["bbox"] == [0, 3 * (annotation["id"] - 1), 10, 3]
            np.testing.assert_array_equal(
                coco.annToMask(annotation), Halves((6, 10)).label_map == annotation["id"], strict=False
            )

    def test_the_merged_file_is_coco_with_unique_ids(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        coco = COCO(str(out / "annotations.json"))
        assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.jpg", "trip/c.webp"]
        assert sorted(coco.anns) == [1, 2, 3, 4, 5, 6]
        assert [len(coco.getAnnIds(imgIds=[image])) for image in coco.getImgIds()] == [2, 2, 2]
        assert coco.loadCats(1)[0]["name"] == "object"
        heights = [coco.annToMask(coco.loadAnns(coco.getAnnIds(imgIds=[k]))[0]).shape[0] for k in (1, 2, 3)]
        assert heights == [8, 6, 4], "the masks went with their images"

    def test_no_objects_is_a_result(self, photos: Path, out: Path) -> None:
        class Nothing(Halves):
            label_map = property(lambda self: np.zeros(self.shape, np.int32))

            def records(self) -> list[dict[str, Any]]:
                return []

        assert run_batch(plan_batch(photos, out, SETTINGS), lambda image: Nothing(image.shape[:2])) == ()
        merged = json.loads((out / "annotations.json").read_text())
        assert (len(merged["images"]), merged["annotations"]) == (3, [])


class TestRestart:
    def test_nothing_to_do_changes_no_byte(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        before, again = contents(out), Cutter()
        assert run_batch(plan_batch(photos, out, SETTINGS), again.cut) == ()
        assert again.cuts == 0
        assert contents(out) == before

    def test_stopped_in_the_middle(self, photos: Path, out: Path) -> None:
        class Stops(Cutter):
            def cut(self, image: np.ndarray) -> Halves:
                if self.cuts == 2:
                    raise KeyboardInterrupt
                return super().cut(image)

        with pytest.raises(KeyboardInterrupt):
            run_batch(plan_batch(photos, out, SETTINGS), Stops().cut)
        plan = plan_batch(photos, out, SETTINGS)
        assert todo(plan) == ["trip/c.webp"]
        again = Cutter()
        run_batch(plan, again.cut)
        assert again.cuts == 1
        whole = out.with_name("whole")
        run_batch(plan_batch(photos, whole, SETTINGS), Cutter().cut)
        assert contents(out) == contents(whole), "stopped and gone on = never stopped"

    @pytest.mark.parametrize("lost", ["labels/a.png", "overlays/a.png", "coco/a.json"])
    def test_a_lost_output_is_made_again(self, photos: Path, out: Path, lost: str) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        (out / lost).unlink()
        assert todo(plan_batch(photos, out, SETTINGS)) == ["a.png"]

    def test_a_record_that_lost_its_annotations_is_made_again(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        record = json.loads((out / "coco/a.json").read_text())
        (out / "coco/a.json").write_text(json.dumps({"info": record["info"]}))
        assert todo(plan_batch(photos, out, SETTINGS)) == ["a.png"]

    @pytest.mark.parametrize("text", ['{"info": {"made', "[]", '{"info": null}'])
    def test_a_damaged_record_is_made_again(self, photos: Path, out: Path, text: str) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        (out / "coco/a.json").write_text(text)
        assert todo(plan_batch(photos, out, SETTINGS)) == ["a.png"]

    def test_a_changed_image_is_cut_again(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        save(photos / "b.jpg", 30, 30)
        assert todo(plan_batch(photos, out, SETTINGS)) == ["b.jpg"]

    def test_other_settings_cut_all_again(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        assert len(todo(plan_batch(photos, out, {"options": {"points_per_side": 5}}))) == 3


class TestFailures:
    def test_a_bad_image_does_not_stop_the_rest(self, photos: Path, out: Path) -> None:
        (photos / "b.jpg").write_bytes(b"\xff\xd8 cut short")
        failures = run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        assert [failure.source for failure in failures] == [photos / "b.jpg"]
        assert "b.jpg" in str(failures[0].error)
        merged = json.loads((out / "annotations.json").read_text())
        assert [image["file_name"] for image in merged["images"]] == ["a.png", "trip/c.webp"]
        assert not [name for name in contents(out) if "b." in name]

    def test_a_failing_model_does_not_stop_the_rest(self, photos: Path, out: Path) -> None:
        failures = run_batch(plan_batch(photos, out, SETTINGS), Cutter(fail_at=frozenset({1})).cut)
        assert [(failure.source.name, str(failure.error)) for failure in failures] == [("a.png", "out of memory")]
        assert todo(plan_batch(photos, out, SETTINGS)) == ["a.png"], "a failure is tried again"

    def test_an_image_that_went_bad_leaves_the_merged_file(self, photos: Path, out: Path) -> None:
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        (photos / "a.png").write_bytes(b"broken")
        run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        merged = json.loads((out / "annotations.json").read_text())
        assert [image["file_name"] for image in merged["images"]] == ["b.jpg", "trip/c.webp"]

    def test_more_objects_than_16_bits_hold(self, photos: Path, out: Path) -> None:
        class Many(Halves):
            label_map = property(lambda self: np.full(self.shape, 65536, np.int32))

        failures = run_batch(plan_batch(photos, out, SETTINGS), lambda image: Many(image.shape[:2]))
        assert len(failures) == 3
        assert "labels up to 65535, got 65536" in str(failures[0].error)


def test_progress_starts_with_what_was_done(photos: Path, out: Path) -> None:
    run_batch(plan_batch(photos / "a.png", out, SETTINGS), Cutter().cut)
    seen: list[tuple[int, int]] = []
    plan = plan_batch(photos, out, SETTINGS)
    run_batch(plan, Cutter().cut, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


class TestWriting:
    """A disk that cannot be written to stops everything; what failed before it is not forgotten."""

    @pytest.mark.parametrize("blocked", ["labels", "overlays", "coco"])
    def test_it_stops_at_once_and_tells_what_failed(self, photos: Path, out: Path, blocked: str) -> None:
        (photos / "a.png").write_bytes(b"broken")
        out.mkdir()
        (out / blocked).write_bytes(b"a file where a folder is needed")
        cutter = Cutter()
        with pytest.raises(OutputError, match=r"cannot write into '.*out': .*; put that right and the same") as caught:
            run_batch(plan_batch(photos, out, SETTINGS), cutter.cut)
        assert cutter.cuts == 1, "the first good image, and none after it"
        assert [failure.source.name for failure in caught.value.failures] == ["a.png"]
        (out / blocked).unlink()
        assert len(run_batch(plan_batch(photos, out, SETTINGS), cutter.cut)) == 1

    def test_a_full_disk(self, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_file: int) -> None:
            raise OSError(28, "No space left on device")

        plan, cutter = plan_batch(photos, out, SETTINGS), Cutter()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            run_batch(plan, cutter.cut)
        assert cutter.cuts == 1
        assert contents(out) == {}

    def test_the_merged_file(self, photos: Path, out: Path) -> None:
        (photos / "a.png").write_bytes(b"broken")
        (out / "annotations.json").mkdir(parents=True)
        with pytest.raises(OutputError, match=r"annotations\.json") as caught:
            run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        assert [failure.source.name for failure in caught.value.failures] == ["a.png"]

    def test_a_name_that_is_too_long_for_its_record_is_of_one_image(self, photos: Path, out: Path) -> None:
        long = save(photos / ("n" * 251 + ".png"))
        failures = run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut)
        assert [failure.source for failure in failures] == [long]

    def test_an_image_that_may_not_be_read_is_of_one_image(self, photos: Path, out: Path) -> None:
        def read(path: Path) -> np.ndarray:
            if path.name == "a.png":
                raise PermissionError(13, "Permission denied", str(path))
            return open_image(path)

        failures = run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut, read=read)
        assert [failure.source.name for failure in failures] == ["a.png"]


def test_images_are_read_as_asked(photos: Path, out: Path) -> None:
    failures = run_batch(plan_batch(photos, out, SETTINGS), Cutter().cut, read=partial(open_image, max_pixels=60))
    assert [failure.source.name for failure in failures] == ["a.png"], "12 x 8 pixels; 10 x 6 and 9 x 4 are let through"
