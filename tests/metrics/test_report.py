"""A report says what it was given, in JSON, CSV and on a page that needs nothing else."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from linocut.metrics.report import (
    ClassRow,
    Example,
    ImageRow,
    Picture,
    Report,
    Score,
    order_worst_first,
    per_class_csv,
    per_image_csv,
    render_json,
)
from linocut.metrics.report_charts import histogram, normalise, share
from linocut.metrics.report_html import MOST_IMAGES, render_html

NAN = math.nan
SCORES = {"iou": 0.5, "precision": NAN, "recall": 0.25, "f1": 2 / 3}


def image(name: str, miou: float) -> ImageRow:
    return ImageRow(name, 40, 30, {"counted": 1000, "wrong": 7}, {"miou": miou, "pa": 0.993}, "cup & <saucer>")


def make(count: int = 2, **changes: Any) -> Report:
    rows = tuple(ClassRow(i, f"class {i}", "#102030", 10 * i, 7, SCORES) for i in range(count - 1))
    rows += (ClassRow(9, "cup & <saucer>", "#abcdef", 3, 4, SCORES),)
    confusion = np.arange(count * count).reshape(count, count)
    picture = Picture("mistakes", "Where a is wrong", b"\x89PNG", "image/png", 4, 3)
    images = (image("<b>", 0.25), image("a", 0.75))
    base = Report(
        task="semantic",
        prediction="my <pred>",
        target="gt",
        settings={"ignore": 255},
        scores=(Score("miou", "MIoU", 0.5, "mean"), Score("kappa", "Kappa", NAN, "chance")),
        rank="miou",
        classes=rows,
        confusion=confusion,
        images=images,
        examples=(Example(images[0], (picture,)),),
        legend=(("#ff0000", "wrong class"),),
        missing=("lost",),
        extra=("found",),
        notes=("Beware.",),
    )
    return replace(base, **changes)


class Page(HTMLParser):
    """Tags that are open, all attributes, and the text of cells."""

    VOID = frozenset({"meta", "img", "input", "br", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_json_has_all_figures_and_null_for_none() -> None:
    figures = json.loads(render_json(make()), parse_constant=pytest.fail)
    assert figures["scores"] == {"miou": 0.5, "kappa": None}
    assert figures["classes"][1] == {
        "label": 9,
        "name": "cup & <saucer>",
        "iou": 0.5,
        "precision": None,
        "recall": 0.25,
        "f1": 2 / 3,
        "target_pixels": 3,
        "predicted_pixels": 4,
    }
    matrix = figures["confusion_matrix"]
    assert matrix == {"rows": "target", "columns": "prediction", "labels": [0, 9], "pixels": [[0, 1], [2, 3]]}
    assert [row["name"] for row in figures["images"]] == ["<b>", "a"]
    assert (figures["missing"], figures["extra"], figures["notes"]) == (["lost"], ["found"], ["Beware."])


def test_csv_has_one_row_each() -> None:
    classes = list(csv.DictReader(io.StringIO(per_class_csv(make()))))
    assert [(row["name"], row["iou"], row["precision"]) for row in classes] == [
        ("class 0", "0.5", ""),
        ("cup & <saucer>", "0.5", ""),
    ]
    images = list(csv.DictReader(io.StringIO(per_image_csv(make()))))
    assert (images[0]["name"], images[0]["wrong"], float(images[0]["miou"])) == ("<b>", "7", 0.25)
    assert per_image_csv(make(images=())) == ""
    thresholds = ({"iou": 0.5, "ap": 0.25, "tp": 3},)
    assert per_class_csv(make(task="instance", thresholds=thresholds)) == "iou,ap,tp\n0.5,0.25,3\n"


def test_worst_first_and_those_without_a_score_last() -> None:
    rows = [image("n", NAN), image("b", 0.5), image("c", 0.1), image("a", 0.5)]
    assert [row.name for row in order_worst_first(rows, "miou")] == ["c", "a", "b", "n"]


@pytest.mark.parametrize("count", [1, 2, 30, 80])
def test_the_page_is_whole_and_needs_nothing_else(count: int) -> None:
    text = render_html(make(count))
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, value)
    assert not re.search(r"@import|url\(|https?:", text)


def test_the_page_can_be_read_without_seeing_it() -> None:
    page = Page(render_html(make()))
    pictures = [attributes for tag, attributes in page.tags if tag == "img" and "src" in attributes]
    assert pictures
    assert all(attributes["alt"] for attributes in pictures)
    regions = [attributes for _, attributes in page.tags if "scroll" in (attributes.get("class") or "").split()]
    assert regions
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)
    assert next(attributes for tag, attributes in page.tags if tag == "html")["lang"] == "en"
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_names_are_text_and_not_markup() -> None:
    text = render_html(make())
    assert "<saucer>" not in text
    assert "my <pred>" not in text
    assert "cup &amp; &lt;saucer&gt;" in text
    assert "<h3>&lt;b&gt;</h3>" in text


def test_the_page_says_what_was_left_out() -> None:
    text = render_html(make())
    assert "1 target without a prediction is not in the figures" in text
    assert "<li>lost</li>" in text
    assert "Beware." in text
    clean = render_html(make(missing=(), extra=(), notes=()))
    assert "Before you trust" not in clean
    assert "Left out" not in clean


def test_a_long_list_is_cut_and_says_so() -> None:
    rows = tuple(image(str(place), place / 1000) for place in range(MOST_IMAGES + 1))
    text = render_html(make(images=rows))
    assert f"The {MOST_IMAGES} worst of {MOST_IMAGES + 1}" in text
    assert text.count("class=name>") == MOST_IMAGES


def test_a_matrix_is_normalised_both_ways() -> None:
    counts = np.array([[3, 1], [0, 0]])
    np.testing.assert_array_equal(normalise(counts, 1), [[0.75, 0.25], [NAN, NAN]])
    np.testing.assert_array_equal(normalise(counts, 0), [[1, 1], [0, 0]])
    text = render_html(make(confusion=counts))
    assert "class 0 → cup &amp; &lt;saucer&gt;: 25.0 %" in text
    assert "class 0 → cup &amp; &lt;saucer&gt;: 100.0 %" in text
    assert "<b>class 0</b> taken for <b>cup &amp; &lt;saucer&gt;</b>: 25.0 % of it, 100.0 % of all mistakes" in text


def test_no_mistake_is_said_so() -> None:
    assert "Not one pixel is taken for another class." in render_html(make(confusion=np.diag([3, 4])))


def test_shares_do_not_round_to_none_or_all() -> None:
    assert [share(value) for value in (0.0, 1e-6, 0.0123, 0.5, NAN)] == ["0.00 %", "< 0.01 %", "1.23 %", "50.0 %", "–"]
    page = render_html(make(confusion=np.array([[99_999, 1], [0, 1]])))
    assert ">&gt;99</td>" in page
    assert ">&lt;1</td>" in page


def test_histogram_counts_every_defined_score() -> None:
    text = histogram([0.0, 1.0, NAN, *[0.52] * 9], "Images by MIoU", "MIoU")
    assert "median 0.520, lowest 0.000, highest 1.000" in text
    assert [int(n) for n in re.findall(r": (\d+) images?</title>", text)] == [1, 9, 1]
    assert histogram([0.5] * 3, "Images by MIoU", "MIoU") == ""
