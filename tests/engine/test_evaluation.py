"""Figures as JSON, as a table and as a plot."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linocut.engine.evaluation import (
    TABLE_HEADINGS,
    Evaluation,
    check_plot,
    markdown_table,
    plot_iou_by_click,
    table_rows,
)

RESULT = Evaluation(
    pack="drawn",
    split="test",
    noc80=1.5,
    noc85=2.25,
    noc90=3.0,
    fail90=0.125,
    iou1=0.5,
    iou3=0.75,
    iou5=0.875,
    iou_box=0.625,
    objects=12,
    seconds_encode=0.25,
    seconds_click=0.0625,
    objects_too_small=3,
    max_clicks=20,
    max_objects=None,
    seed=7,
    stuff=False,
    iou_by_click=tuple(1 - 0.5**click for click in range(1, 21)),
)


def test_json_has_the_agreed_keys() -> None:
    figures = json.loads(json.dumps(RESULT.to_json()))
    agreed = [
        "noc80",
        "noc85",
        "noc90",
        "fail90",
        "iou1",
        "iou3",
        "iou5",
        "iou_box",
        "objects",
        "seconds_encode",
        "seconds_click",
    ]
    described = ["pack", "split", "max_clicks", "max_objects", "objects_too_small", "iou_by_click", "seed", "stuff"]
    assert set(figures) == {*agreed, *described}
    assert figures["iou_by_click"] == list(RESULT.iou_by_click)
    assert (figures["noc85"], figures["max_objects"], figures["pack"]) == (2.25, None, "drawn")


def test_a_row_has_a_figure_for_every_heading() -> None:
    (row,) = table_rows([RESULT])
    figures = dict(zip(TABLE_HEADINGS, row, strict=True))
    assert (figures["NoC@85"], figures["never 90"], figures["IoU box"]) == ("2.25", "12.5%", "0.625")
    assert (figures["encode CPU-s"], figures["click CPU-s"]) == ("0.250", "0.062")
    assert dict(zip(TABLE_HEADINGS, table_rows([replace(RESULT, iou5=None)])[0], strict=True))["IoU 5 clicks"] == "–"


def test_markdown_has_a_row_and_a_note_for_each() -> None:
    sampled = replace(RESULT, max_objects=12, stuff=True)
    lines = markdown_table([RESULT, sampled]).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[2].startswith("| drawn | test | 12 | 1.50 | 2.25 | 3.00 | 12.5% | 0.500 |")
    assert lines[5] == "- drawn test: at most 20 clicks, 3 objects under 256 pixels left out."
    assert lines[6].endswith("left out, a sample with seed 7, stuff included.")


@pytest.mark.parametrize("name", ["curve.png", "curve", "curve.PNG"])
def test_the_plot_is_an_image(tmp_path: Path, name: str) -> None:
    plot_iou_by_click([RESULT, replace(RESULT, max_clicks=3, iou_by_click=(0.1, 0.2, 0.3))], tmp_path / name)
    with Image.open(tmp_path / name) as drawn:
        assert drawn.format == "PNG"
        assert np.asarray(drawn.convert("L")).std() > 0, "something is drawn"


def test_a_format_that_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of .*pdf, .*png, .*got '.*curve\.xyz'"):
        plot_iou_by_click([RESULT], tmp_path / "curve.xyz")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_plot("curve.png")
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ValueError, match=r'pip install "linocut\[plots\]"'):
        check_plot("curve.png")


def test_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one evaluation"):
        plot_iou_by_click([], tmp_path / "curve.png")
