"""Run lengths: the same bits as pycocotools, there and back, with the native core and without."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from linocut.data.rle import _counts_to_string, _string_to_counts, decode_rle, encode_rle

# The fixture only sets an environment variable, so one setting serves all examples of a test.
both_forms = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=21))
int64 = st.integers(-(1 << 63), (1 << 63) - 1)


def coco_encode(mask: NDArray[Any]) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


@both_forms
@given(mask=masks)
@example(mask=np.ones((3, 1), dtype=bool))
@example(mask=np.zeros((0, 4), dtype=bool))
def test_encode_is_that_of_pycocotools(form: str, mask: NDArray[np.bool_]) -> None:
    assert encode_rle(mask) == coco_encode(mask)


@both_forms
@given(mask=masks)
def test_round_trip(form: str, mask: NDArray[np.bool_]) -> None:
    for compressed in (True, False):
        decoded = decode_rle(encode_rle(mask, compressed=compressed))
        assert decoded.dtype == np.bool_
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, mask)


def test_long_runs_match_pycocotools(form: str) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((700, 1100), dtype=bool)
    for y, x in rng.integers(0, 700, (40, 2)):
        mask[y : y + 90, x : x + 60] ^= True
    encoded = encode_rle(mask)
    assert encoded == coco_encode(mask)
    np.testing.assert_array_equal(decode_rle(encoded), mask)


def test_format_by_hand(form: str) -> None:
    # Columns 0 1 1 | 1 0 0: runs 1, 3, 2. The string writes 1, 3, 2 as they are.
    mask = np.array([[0, 1], [1, 0], [1, 0]])
    assert encode_rle(mask, compressed=False) == {"size": [3, 2], "counts": [1, 3, 2]}
    assert encode_rle(mask)["counts"] == "132"
    # 16 needs a second group: its low five bits alone would read as -16.
    assert encode_rle(np.zeros((16, 1), dtype=bool))["counts"] == "`0"


@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32])
def test_layout_and_dtype_do_not_matter(form: str, order: str, dtype: type) -> None:
    plain = np.random.default_rng(1).random((9, 14)) < 0.5
    mask = plain.astype(dtype) * dtype(1 if dtype is np.bool_ else 7)
    if order == "F":
        mask = np.asfortranarray(mask)
    elif order == "strided":
        mask = np.repeat(mask, 2, axis=1)[:, ::2]
    assert encode_rle(mask) == coco_encode(plain)


def test_zero_runs_inside_are_read_as_pycocotools_reads_them(form: str) -> None:
    counts = [2, 0, 1, 1, 0, 0, 2]
    by_pycocotools = coco.decode(coco.frPyObjects({"size": [3, 2], "counts": counts}, 3, 2))
    np.testing.assert_array_equal(decode_rle({"size": [3, 2], "counts": counts}), by_pycocotools)


def test_counts_may_be_bytes_tuple_or_array(form: str) -> None:
    expected = np.array([[False, True]])
    for counts in (b"11", (1, 1), np.array([1, 1], dtype=np.uint32)):
        np.testing.assert_array_equal(decode_rle({"size": (1, 2), "counts": counts}), expected)


@both_forms
@given(data=st.data())
def test_rectangle_in_an_image_is_the_pasted_mask(form: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))
    h, w = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    y, x = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    mask = data.draw(arrays(np.bool_, (h, w)))
    whole = np.zeros((height, width), dtype=bool)
    whole[y : y + h, x : x + w] = mask
    assert encode_rle(mask, offset=(x, y), shape=(height, width)) == encode_rle(whole)


def test_rectangle_in_an_image_too_large_to_hold(form: str) -> None:
    rle = encode_rle(np.ones((2, 1), dtype=bool), offset=(1, 5), shape=(10**9, 10**9), compressed=False)
    assert rle["counts"] == [10**9 + 5, 2, 10**18 - 10**9 - 7]


@both_forms
@given(counts=st.lists(st.integers(0, 1 << 61), max_size=9))
@example(counts=[0, (1 << 63) - 1, 0, 0, 1])
def test_string_holds_any_counts(form: str, counts: list[int]) -> None:
    text = _counts_to_string(np.array(counts, dtype=np.int64))
    assert all(48 <= ord(char) < 112 for char in text)
    assert _string_to_counts(text).tolist() == counts


@given(text=st.text(alphabet=[chr(code) for code in range(46, 114)], max_size=40) | st.text(max_size=8))
@example(text="o" * 12 + "7")
@example(text="o" * 12 + "8")
@example(text="o" * 14)
@example(text="\ud800")
def test_both_forms_read_and_refuse_the_same_strings(text: str) -> None:
    outcomes = []
    for setting in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LINOCUT_NATIVE", setting)
            try:
                outcomes.append(_string_to_counts(text).tolist())
            except ValueError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("1 1", r"not a run-length character at character 1"),
        ("11é", r"not a run-length character at character 2"),
        ("1o", r"ends inside a run at character 2"),
        ("P" * 13 + "1", r"more than 13 characters at character 13"),
        ("P" * 12 + "8", r"overflows 64 bits at character 12"),
        ("1Q", r"ends inside a run"),
        ("3O", r"runs must be >= 0, got -1 at place 1"),
        ("3", r"add up to h \* w = 1 \* 2 = 2, got 3"),
        ("", r"got 0"),
        ([3], r"got 3"),
        ([3, -1], r">= 0, got -1 at place 1"),
        ([1 << 62] * 8, rf"got {1 << 65}"),
        (np.array([(1 << 64) - 1], dtype=np.uint64), r"below 2\*\*63"),
    ],
)
def test_malformed_counts_are_refused(form: str, counts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle({"size": [1, 2], "counts": counts})


@pytest.mark.parametrize("counts", [None, 3, [0.5, 1.5], [[1, 1]], ["1"]])
def test_counts_of_another_kind_are_refused(counts: object) -> None:
    with pytest.raises(TypeError, match="counts must be"):
        decode_rle({"size": [1, 2], "counts": counts})


@pytest.mark.parametrize("size", [None, [2], [1, 2, 3], [-1, -2], [1.0, 2.0], "12"])
def test_bad_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"size must be \[height, width\]"):
        decode_rle({"size": size, "counts": "2"})


def test_size_beyond_memory_is_refused() -> None:
    side = sys.maxsize
    with pytest.raises(ValueError, match="more than an array can hold"):
        decode_rle({"size": [side, side], "counts": [1]})


def test_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="counts missing"):
        decode_rle({"size": [1, 1]})


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        (np.zeros((2, 2), dtype=np.float32), TypeError, r"float32; threshold first"),
        (np.zeros(4, dtype=bool), ValueError, r"shape \(h, w\), got \(4,\)"),
        (np.zeros((2, 2, 1), dtype=bool), ValueError, r"got \(2, 2, 1\)"),
    ],
)
def test_bad_mask_is_refused(mask: NDArray[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        encode_rle(mask)


@pytest.mark.parametrize(("offset", "shape"), [((-1, 0), (5, 5)), ((4, 0), (5, 5)), ((0, 0), (1, 5))])
def test_mask_outside_its_image_is_refused(offset: tuple[int, int], shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must lie inside the image"):
        encode_rle(np.ones((2, 2), dtype=bool), offset=offset, shape=shape)


def test_offset_without_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"offset \(1, 0\) needs shape"):
        encode_rle(np.ones((2, 2), dtype=bool), offset=(1, 0))
