"""A report as one HTML page that needs nothing else: no network, no other file.

Everything on it can be read without seeing its colours, used with the keyboard alone, and, but for sorting and
enlarging, without scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from linocut.metrics.report import Example, ImageRow, Report, Score
from linocut.metrics.report_charts import bar, confusions_table, heat_maps, histogram, number, share

MOST_IMAGES = 300
"""Images listed on the page; per_image.csv has them all."""

_MOST_IN_KEY = 30

_TITLES = {
    "pa": "PA",
    "mpa": "MPA",
    "miou": "MIoU",
    "fwiou": "FWIoU",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1 / Dice",
    "ap": "AP",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "aji": "AJI",
    "boundary_iou": "Boundary IoU",
    "boundary_f": "Boundary F",
    "tp": "Found",
    "fp": "False",
    "fn": "Missed",
}


def render_html(report: Report) -> str:
    """The report as a page.

    Args:
        report: the figures.

    Returns:
        HTML, complete with style, script and pictures.
    """
    parts = [
        _head(report),
        _header(report),
        _notes(report),
        _headline(report.scores),
        _classes(report),
        _thresholds(report),
        _confusion(report),
        _examples(report),
        _images(report),
        _lists(report),
        _footer(report),
    ]
    return "\n".join(part for part in parts if part)


def _head(report: Report) -> str:
    """Title, style, and the start of the page."""
    title = escape(f"{report.prediction} against {report.target}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{_asset('report.css')}</style>\n</head>\n<body>\n<main>"
    )


def _header(report: Report) -> str:
    """What was compared with what, and how much of it."""
    counted = sum(row.counts.get("counted", 0) for row in report.images)
    pixels = sum(row.width * row.height for row in report.images)
    count = len(report.images)
    facts = [f"{count:,} image{'s' * (count != 1)}", f"{pixels:,} pixels"]
    if counted and counted != pixels:
        facts.append(f"{pixels - counted:,} of them ignored ({share((pixels - counted) / pixels)})")
    if report.classes:
        facts.append(f"{len(report.classes):,} classes present")
    return (
        f"<header>\n<p class=kicker>Linocut metrics · {escape(report.task)} segmentation</p>\n"
        f"<h1><span class=path>{escape(report.prediction)}</span> <span class=against>against</span> "
        f"<span class=path>{escape(report.target)}</span></h1>\n<p class=facts>{' · '.join(facts)}</p>\n</header>"
    )


def _notes(report: Report) -> str:
    """What must be known before the figures are believed."""
    notes = [escape(note) for note in report.notes]
    for names, what, why in (
        (report.missing, "target", "without a prediction"),
        (report.extra, "prediction", "without a target"),
    ):
        if names:
            plural = "s" * (len(names) != 1)
            verb = "are" if plural else "is"
            notes.append(f'{len(names):,} {what}{plural} {why} {verb} not in the figures: <a href="#left-out">list</a>')
    if not notes:
        return ""
    items = "".join(f"<li>{note}</li>" for note in notes)
    return f'<section class=notes aria-label="Notes"><h2>Before you trust the figures</h2><ul>{items}</ul></section>'


def _headline(scores: Sequence[Score]) -> str:
    """The figures that people quote."""
    tiles = "".join(
        f"<div class=tile><dt>{escape(score.title)}</dt><dd><span class=value>{number(score.value)}</span>"
        f"{bar(score.value)}<span class=meaning>{escape(score.meaning)}</span></dd></div>"
        for score in scores
    )
    return f'<section aria-label="Headline figures"><dl class=tiles>{tiles}</dl></section>'


def _classes(report: Report) -> str:
    """One row a class, with bars."""
    if not report.classes:
        return ""
    keys = list(report.classes[0].scores)
    total = max(1, sum(row.target for row in report.classes))
    rows = []
    for row in report.classes:
        cells = [f'<th scope=row><i class=swatch style="background:{row.colour}"></i>{escape(row.name)}</th>']
        first, *others = keys
        cells.append(_cell(row.scores[first], f"{bar(row.scores[first])}{number(row.scores[first])}", "bar"))
        cells += [_cell(row.scores[key], number(row.scores[key])) for key in others]
        cells.append(_cell(row.target, f"{row.target:,} <small>{share(row.target / total)}</small>"))
        cells.append(_cell(row.predicted, f"{row.predicted:,}"))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["Class", *(_TITLES.get(key, key) for key in keys), "Pixels in truth", "Pixels predicted"]
    return (
        "<section><h2>Each class</h2>"
        "<p>Recall is the share of a class that was found, precision the share of what was called so that is of it."
        " A dash means that there is nothing to divide by; such a class is left out of means.</p>"
        f"{_table(heads, rows, 'The figures of each class')}</section>"
    )


def _thresholds(report: Report) -> str:
    """For instances, one row an IoU threshold."""
    if not report.thresholds:
        return ""
    keys = [key for key in report.thresholds[0] if key != "iou"]
    rows = []
    for row in report.thresholds:
        cells = [f"<th scope=row>{row['iou']:.2f}</th>"]
        for key in keys:
            value = row[key]
            whole = isinstance(value, int)
            first = key == keys[0]
            text = f"{value:,}" if whole else f"{bar(value) * first}{number(value)}"
            cells.append(_cell(value, text, "bar" * first))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["IoU over", *(_TITLES.get(key, key) for key in keys)]
    table = _table(heads, rows, "Objects found, false and missed at each IoU threshold")
    return (
        "<section><h2>Objects at each threshold</h2>"
        "<p>Counted over all images together; AP and AP50 above are means over images.</p>"
        f"{table}</section>"
    )


def _confusion(report: Report) -> str:
    """What is taken for what."""
    if report.confusion is None or not report.classes:
        return ""
    names = [row.name for row in report.classes]
    return (
        "<section><h2>What is taken for what</h2>"
        f"{heat_maps(report.confusion, names, [row.colour for row in report.classes])}"
        f"{confusions_table(report.confusion, names)}</section>"
    )


def _examples(report: Report) -> str:
    """The worst images, with pictures."""
    if not report.examples:
        return ""
    legend = "".join(
        f'<li><i class=swatch style="background:{colour}"></i>{escape(meaning)}</li>'
        for colour, meaning in report.legend
    )
    names = "".join(
        f'<li><i class=swatch style="background:{row.colour}"></i>{escape(row.name)}</li>'
        for row in report.classes[:_MOST_IN_KEY]
    )
    if len(report.classes) > _MOST_IN_KEY:
        names += "<li>… all in the table above</li>"
    key = f"<p class=key>Classes</p><ul class=legend>{names}</ul>" if names else ""
    title = _TITLES.get(report.rank, report.rank)
    cards = "".join(_card(example, report.rank, title) for example in report.examples)
    return (
        f"<section><h2>The worst images</h2><p>Lowest {escape(title)} first. Choose a picture to see it large.</p>"
        f"<p class=key>Mistakes</p><ul class=legend>{legend}</ul>{key}{cards}</section>"
    )


def _card(example: Example, rank: str, title: str) -> str:
    """One image: its figures and pictures."""
    row = example.image
    facts = [f"{title} {number(row.scores[rank])}"]
    if "wrong" in row.counts:
        counted = max(1, row.counts["counted"])
        facts.append(f"{row.counts['wrong']:,} pixels wrong ({share(row.counts['wrong'] / counted)})")
    else:
        facts += [f"{count:,} {key}" for key, count in row.counts.items()]
    if row.worst_class:
        facts.append(f"worst class {row.worst_class}")
    figures = "".join(
        f"<figure><button type=button class=zoom aria-label='Enlarge: {escape(picture.caption)}'>"
        f'<img src="{picture.address}" alt="{escape(picture.alt)}" width={picture.width} height={picture.height} '
        f"loading=lazy></button><figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in example.pictures
    )
    return (
        f"<article><h3>{escape(row.name)}</h3><p class=facts>{escape(' · '.join(facts))}</p>"
        f"<div class=pictures>{figures}</div></article>"
    )


def _images(report: Report) -> str:
    """All images, worst first, and how their scores are spread."""
    if len(report.images) < 2:
        return ""
    shown = report.images[:MOST_IMAGES]
    count_keys, score_keys = list(shown[0].counts), list(shown[0].scores)
    titles = [_TITLES.get(key, key.capitalize()) for key in (*score_keys, *count_keys)]
    has_worst = any(row.worst_class for row in shown)
    rows = [_image_row(row, score_keys, count_keys, has_worst=has_worst) for row in shown]
    heads = ["Image", *titles, *(["Worst class"] if has_worst else [])]
    cut = (
        f"<p>The {len(shown)} worst of {len(report.images):,}; <code>per_image.csv</code> has them all.</p>"
        if len(shown) < len(report.images)
        else ""
    )
    title = _TITLES.get(report.rank, report.rank)
    spread = histogram([row.scores[report.rank] for row in report.images], f"Images by {title}", title)
    return f"<section><h2>Each image</h2>{spread}{cut}{_table(heads, rows, 'The figures of each image')}</section>"


def _image_row(row: ImageRow, score_keys: Sequence[str], count_keys: Sequence[str], *, has_worst: bool) -> str:
    """One image as a row of the table."""
    cells = [f"<th scope=row class=name>{escape(row.name)}</th>"]
    cells += [_cell(row.scores[key], number(row.scores[key])) for key in score_keys]
    cells += [_cell(row.counts[key], f"{row.counts[key]:,}") for key in count_keys]
    if has_worst:
        cells.append(f"<td class=text>{escape(row.worst_class) or '–'}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _lists(report: Report) -> str:
    """The files that found no partner."""
    lists = [
        f"<h3>{heading}</h3><ul class=names>{''.join(f'<li>{escape(name)}</li>' for name in names)}</ul>"
        for heading, names in (
            ("Targets without a prediction", report.missing),
            ("Predictions without a target", report.extra),
        )
        if names
    ]
    return f"<section id=left-out><h2>Left out</h2>{''.join(lists)}</section>" if lists else ""


def _footer(report: Report) -> str:
    """How to get the same figures again, and the end of the page."""
    settings = ", ".join(f"{key} {value}" for key, value in report.settings.items())
    return (
        f"<footer><p>Settings: {escape(settings)}.</p></footer>\n</main>\n"
        '<dialog id=large aria-label="Enlarged picture"><form method=dialog><button>Close</button></form>'
        '<img alt=""></dialog>\n'
        f"<script>\n{_asset('report.js')}</script>\n</body>\n</html>"
    )


def _table(heads: Sequence[str], rows: Iterable[str], caption: str) -> str:
    """A table that can be scrolled sideways, with the keyboard too; its script makes the headings buttons."""
    cells = "".join(f"<th scope=col>{escape(head)}</th>" for head in heads)
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{escape(caption)}"><table class=sortable>'
        f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: float, text: str, kind: str = "") -> str:
    """A cell with the number that sorting goes by."""
    number_of = "" if value != value else f" data-value={value:.9g}"
    return f'<td class="{kind}"{number_of}>{text}</td>' if kind else f"<td{number_of}>{text}</td>"


def _asset(name: str) -> str:
    """A file that ships beside this one."""
    return (resources.files("linocut.metrics") / name).read_text(encoding="utf-8")
