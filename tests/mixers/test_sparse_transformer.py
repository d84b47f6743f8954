"""The Sparse Transformer's factors, in all combinations, against one query at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from linocut import mixers
from mixers.oracle import build, check, tokens

STRIDE, KEEP = 5, 2
LENGTHS = [1, 2, 5, 6, 60, 73]


def first(pattern: str, i: int) -> set[int]:
    """The paper's A⁽¹⁾ of section 4.3."""
    if pattern == "strided":
        return set(range(max(0, i - STRIDE), i + 1))
    return {j for j in range(i + 1) if j // STRIDE == i // STRIDE}


def second(pattern: str, i: int) -> set[int]:
    """The paper's A⁽²⁾."""
    if pattern == "strided":
        return {j for j in range(i + 1) if (i - j) % STRIDE == 0}
    return {j for j in range(i + 1) if j % STRIDE >= STRIDE - KEEP}


COMBINED: dict[str, Callable[[str, int, int], set[int]]] = {
    "first": lambda pattern, _, i: first(pattern, i),
    "second": lambda pattern, _, i: second(pattern, i),
    "merged": lambda pattern, _, i: first(pattern, i) | second(pattern, i),
    "split": lambda pattern, head, i: first(pattern, i) if head == 0 else second(pattern, i),
}


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize("combine", sorted(COMBINED))
@pytest.mark.parametrize("length", LENGTHS)
def test_each_query_sees_what_the_paper_says(pattern: str, combine: str, length: int) -> None:
    mixer = build("sparse_transformer", heads=2, pattern=pattern, stride=STRIDE, summary=KEEP, combine=combine)
    check(mixer, tokens(length), lambda head, i: COMBINED[combine](pattern, head, i))


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_any_token_reaches_any_later_one_in_two_hops(pattern: str) -> None:
    """Section 4.2: what makes a factorisation valid."""
    length = 40
    hop = torch.tensor([[j in first(pattern, i) | second(pattern, i) for j in range(length)] for i in range(length)])
    assert torch.equal((hop.int() @ hop.int()) > 0, torch.ones(length, length).tril() > 0)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_a_stride_longer_than_the_sequence(pattern: str) -> None:
    mixer = build("sparse_transformer", heads=2, pattern=pattern, stride=50, summary=3, combine="merged")
    check(mixer, tokens(20), lambda _, i: range(i + 1))


def test_a_bad_token_reaches_only_those_who_see_it() -> None:
    mixer, x = build("sparse_transformer", heads=2, pattern="fixed", stride=STRIDE, summary=KEEP), tokens(30)
    x[0, 11] = torch.nan  # not a summary: its block alone sees it
    assert mixer(x)[0].isnan().any(dim=-1).nonzero().flatten().tolist() == [11, 12, 13, 14]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "dilated"}, "pattern must be one of strided, fixed, got 'dilated'"),
        ({"combine": "both"}, "combine must be one of split, merged, first, second, got 'both'"),
        ({"stride": 0}, "stride must be >= 1, got 0"),
        ({"pattern": "fixed", "stride": 4, "summary": 5}, "summary must be from 1 to the stride of 4, got 5"),
        ({"heads": 1}, "combine='split' needs at least 2 heads, got 1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("sparse_transformer", 12, **options)
