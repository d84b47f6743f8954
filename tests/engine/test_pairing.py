"""Predictions find their truths by name, and what cannot be paired is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from linocut.data.pixels import ImageError
from linocut.engine.pairing import pair_files


def put(path: Path, height: int = 3, width: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width), np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    prediction, target = tmp_path / "pred", tmp_path / "gt"
    for name in ("b.png", "sub/a.png", "only_there.png"):
        put(prediction / name)
    for name in ("b.png", "only_here.png"):
        put(target / name)
    (target / "sub").mkdir()
    tifffile.imwrite(target / "sub" / "a.TIF", np.zeros((3, 4), np.uint16))
    (target / "b.jpg").write_text("a photograph beside its labels")
    (target / ".b.png").write_text("a leftover")
    return prediction, target


def test_folders_are_matched_by_path_without_ending(folders: tuple[Path, Path]) -> None:
    pairing = pair_files(*folders)
    assert [pair.name for pair in pairing.pairs] == ["b", "sub/a"]
    assert pairing.pairs[1].target.path.name == "a.TIF"
    assert (pairing.missing, pairing.extra) == (("only_here",), ("only_there",))


def test_two_files_need_no_common_name(folders: tuple[Path, Path]) -> None:
    pairing = pair_files(folders[0] / "b.png", folders[1] / "only_here.png")
    assert [(pair.name, pair.prediction.path.name) for pair in pairing.pairs] == [("only_here", "b.png")]


def test_sizes_that_differ_name_both_files_and_both_sizes(folders: tuple[Path, Path]) -> None:
    put(folders[0] / "b.png", 30, 40)
    with pytest.raises(ValueError, match=r"pred/b\.png has 40 × 30 pixels, but .*gt/b\.png has 4 × 3"):
        pair_files(*folders)


def test_what_cannot_be_paired(folders: tuple[Path, Path], tmp_path: Path) -> None:
    prediction, target = folders
    with pytest.raises(ValueError, match=r"pred is a folder and .*b\.png a file"):
        pair_files(prediction, target / "b.png")
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        pair_files(prediction, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no label map, no file that ends in one of \.png"):
        pair_files(prediction, tmp_path / "empty")
    put(tmp_path / "other" / "b_mask.png")
    with pytest.raises(ValueError, match=r"no file of .*other has the name.*'b_mask' and 'b', 'only_here', 'sub/a'"):
        pair_files(tmp_path / "other", target)
    np.save(prediction / "b.npy", np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"b\.npy and .*b\.png have one name"):
        pair_files(prediction, target)


def test_a_picture_in_colours_is_refused_before_anything_is_counted(folders: tuple[Path, Path]) -> None:
    Image.new("RGB", (4, 3)).save(folders[0] / "b.png")
    with pytest.raises(ImageError, match=r"pred/b\.png' is a picture in colours"):
        pair_files(*folders)
