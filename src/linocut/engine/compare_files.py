"""Writing a report: a folder with all of it, or one file."""

from __future__ import annotations

from pathlib import Path

from linocut.data.files import write_atomic
from linocut.metrics.report import Report, per_class_csv, per_image_csv, render_json
from linocut.metrics.report_html import render_html

_SINGLE = {".html": render_html, ".htm": render_html, ".json": render_json, ".csv": per_class_csv}


def write_report(report: Report, out: Path, *, single: bool) -> Path:
    """Write a report, each file whole or not at all.

    Args:
        report: the figures.
        out: a folder, made if missing, for ``index.html``, ``report.json``, ``per_class.csv`` (``per_threshold.csv`` of
            instances) and ``per_image.csv``; or a single file.
        single: whether it is a file, whose ending says what it holds.

    Returns:
        The file to open first.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the ending of a single file is none of .html, .json and .csv.
    """
    if single:
        render = _SINGLE.get(out.suffix.lower())
        if render is None:
            raise ValueError(f"one file must end in {', '.join(_SINGLE)}, got {out}; without an ending it is a folder")
        write_atomic(out, render(report).encode())
        return out
    table = "per_threshold.csv" if report.task == "instance" else "per_class.csv"
    texts = {
        table: per_class_csv(report),
        "per_image.csv": per_image_csv(report),
        "report.json": render_json(report),
        "index.html": render_html(report),
    }
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return out / "index.html"
