"""The Python lines of the pages in docs/ run as they stand, each page from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGES = Path(__file__).parent.parent / "docs"


def lines(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("page", [page for page in sorted(PAGES.glob("*.md")) if lines(page)], ids=lambda p: p.name)
def test_the_lines_of_a_page_run(page: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(lines(page), {})  # noqa: S102 (the page's own lines)
