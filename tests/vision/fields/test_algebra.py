"""Fields on an axis against sets of indices written out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.vision.fields.algebra import IDENTITY, AxisField, Taps, divided, resampled, transposed, window

# Calls to be made in the test, as checking them draws random numbers, which a strategy must not.
Make = Callable[[], AxisField]
settings = {"dilation": st.integers(1, 3), "stride": st.integers(1, 4), "padding": st.integers(0, 4)}
windows = st.builds(partial, st.sampled_from([window, transposed]), st.integers(1, 4), **settings)
scales = st.builds(Fraction, st.integers(1, 5), st.integers(1, 5))
modes = st.sampled_from(["nearest", "nearest-exact", "linear", "cubic"])
fields = windows | st.builds(partial, st.just(resampled), scales, mode=modes)
fields |= st.builds(partial, st.just(divided), st.integers(1, 9), st.integers(1, 9))


@given(st.sets(st.integers(-30, 30)), st.sets(st.integers(-30, 30)), st.integers(-9, 9))
def test_taps_are_sets(one: set[int], other: set[int], by: int) -> None:
    taps = Taps.of(one)
    assert taps.indices() == sorted(one)
    assert set(taps | Taps.of(other)) == one | other
    assert set(taps.shifted(by)) == {index + by for index in one}
    assert [index in taps for index in range(-31, 32)] == [index in one for index in range(-31, 32)]
    assert bool(taps) == bool(one)
    assert not one or (taps.low, taps.high) == (min(one), max(one))


@given(fields, fields, st.integers(-20, 20))
def test_composition_and_union_are_those_of_sets(a: Make, b: Make, index: int) -> None:
    one, other = a(), b()
    assert set(one.then(other).at(index)) == {at for middle in other.at(index) for at in one.at(middle)}
    assert one.then(other).stride == one.stride * other.stride
    if one.stride == other.stride:
        assert set(one.join(other).at(index)) == set(one.at(index)) | set(other.at(index))
    else:
        with pytest.raises(ValueError, match="must have one stride"):
            one.join(other)


@given(fields, fields, fields)
def test_composition_is_associative_and_has_an_identity(a: Make, b: Make, c: Make) -> None:
    one, two, three = a(), b(), c()
    assert one.then(two).then(three) == one.then(two.then(three))
    assert one.then(IDENTITY) == IDENTITY.then(one) == one


@given(fields, st.integers(-20, 20))
def test_outputs_of_an_input_by_trying_all(make: Make, index: int) -> None:
    field = make()
    touched = [i for i in range(-200, 200) if index in field.at(i)]
    assert field.output_range(index) == ((touched[0], touched[-1]) if touched else None)


@given(fields, st.integers(-3, 3), st.integers(1, 3))
def test_a_tile_with_its_halo_holds_what_its_outputs_read(make: Make, first: int, blocks: int) -> None:
    field = make()
    before, after = field.halo
    start, stop = first * field.advance, (first + blocks) * field.advance
    outputs = range(first * field.period, (first + blocks) * field.period)
    read = {at for index in outputs for at in field.at(index)}
    assert all(start - before <= at < stop + after for at in read)
    assert not before or start - before in read
    assert not after or stop + after - 1 in read


def test_asymmetric_fields_have_asymmetric_halos() -> None:
    even = window(4, padding=1)
    assert (even.halo, even.padding, even.offset) == ((1, 2), 1, Fraction(1, 2))
    causal = window(3, dilation=4, padding=8)
    assert causal.halo == (8, 0)
    assert window(2, stride=4).halo == (0, 0)


def test_where_an_upsampled_map_looks() -> None:
    """Output i of a bilinear doubling lies at (i + 1/2)/2 − 1/2 = i/2 − 1/4."""
    double = resampled(Fraction(1, 2), mode="linear")
    assert (double.size, double.stride, double.offset) == (2, Fraction(1, 2), Fraction(-1, 4))
    third = resampled(Fraction(1, 3), mode="linear")
    assert [third.at(i).indices() for i in range(3)] == [[-1, 0], [0], [0, 1]]


def test_a_short_kernel_leaves_outputs_without_inputs() -> None:
    field = transposed(1, stride=2)
    assert [field.input_range(i) for i in range(3)] == [(0, 0), None, (1, 1)]
    assert field.output_range(1) == (2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: window(0), "kernel must be >= 1, got 0"),
        (lambda: window(3, stride=0), "stride must be >= 1, got 0"),
        (lambda: transposed(3, dilation=0), "dilation must be >= 1, got 0"),
        (lambda: divided(0, 1), "inputs must be >= 1, got 0"),
        (lambda: resampled(Fraction(1, 2), mode="lanczos"), "mode must be one of nearest, .* got 'lanczos'"),
        (lambda: AxisField(0, (Taps(0, 1),)), "advance >= 1 and a period >= 1, got 0 and 1"),
    ],
)
def test_bad_arguments(make: Make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
