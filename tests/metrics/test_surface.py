"""Surface distances beside SciPy's Hausdorff distance and every distance measured, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist, directed_hausdorff

from linocut.metrics import SurfaceDistances, surface_distance
from linocut.metrics.surface import surface

shapes = st.sampled_from([(9,), (6, 8), (4, 5, 3)])
spacings = st.sampled_from([1.0, 0.5, "each"])


@given(shapes.flatmap(lambda shape: hnp.arrays(np.bool_, shape)))
def test_surface_is_the_mask_less_its_erosion(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(surface(mask), mask & ~binary_erosion(mask))


@given(shapes.flatmap(lambda s: st.tuples(hnp.arrays(np.bool_, s), hnp.arrays(np.bool_, s))), spacings)
def test_agrees_with_every_distance_measured(masks: tuple[np.ndarray, np.ndarray], spacing: float | str) -> None:
    a, b = masks
    sizes = [0.5, 2.0, 1.25][: a.ndim] if spacing == "each" else spacing
    found = surface_distance(a, b, spacing=sizes)
    if not (a.any() and b.any()):
        assert found.hausdorff == found.percentile == found.average == (math.inf if a.any() or b.any() else 0)
        return
    points = [np.argwhere(m & ~binary_erosion(m)) * sizes for m in (a, b)]
    there, back = directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]
    assert found.hausdorff == pytest.approx(max(there, back))
    table = cdist(*points)
    nearest = table.min(axis=1), table.min(axis=0)
    assert found.percentile == pytest.approx(max(np.percentile(d, 95) for d in nearest))
    assert found.average == pytest.approx(np.concatenate(nearest).mean())
    assert found == surface_distance(b, a, spacing=sizes), "symmetric to the last bit"
    assert found.average <= found.hausdorff
    assert found.percentile <= found.hausdorff


def test_isotropic_and_anisotropic_paths_agree() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 50)) < 0.02, rng.random((40, 50)) < 0.02
    flat, deep = surface_distance(a, b, spacing=0.7), surface_distance(a[..., None], b[..., None], spacing=0.7)
    assert flat.hausdorff == pytest.approx(deep.hausdorff, rel=1e-14)
    assert flat.average == pytest.approx(deep.average, rel=1e-14)


def test_shifted_square_and_scale() -> None:
    a, b = np.zeros((50, 60), bool), np.zeros((50, 60), bool)
    a[10:20, 10:20], b[10:20, 17:27] = True, True
    assert surface_distance(a, b).hausdorff == 7
    assert surface_distance(a, b, spacing=(1, 3)).hausdorff == 21
    assert surface_distance(a, a).hausdorff == 0
    assert surface_distance(torch.from_numpy(a), torch.from_numpy(b)).hausdorff == 7


def test_percentile_leaves_out_the_outlier() -> None:
    a = np.zeros((60, 60), bool)
    a[5:40, 5:40] = True
    b = a.copy()
    b[58, 58] = True
    distance = surface_distance(a, b)
    assert distance.hausdorff == pytest.approx(np.hypot(19, 19))
    assert distance.percentile == 0
    assert surface_distance(a, b, percentile=100).percentile == distance.hausdorff


def test_summary_counts_what_has_no_distance_apart() -> None:
    one, other, nothing = np.zeros((4, 9), bool), np.zeros((4, 9), bool), np.zeros((4, 9), bool)
    one[1, 2], other[1, 5] = True, True
    distances = SurfaceDistances(spacing=2.0)
    for pair in ((one, other), (one, one), (one, nothing), (nothing, one), (nothing, nothing)):
        distances.update(*pair)
    scores = distances.compute()
    assert (scores.pairs, scores.one_empty, scores.both_empty) == (2, 2, 1)
    assert (scores.hausdorff, scores.percentile, scores.average, scores.worst) == (3.0, 3.0, 3.0, 6.0)


def test_no_pairs_have_no_figures() -> None:
    scores = SurfaceDistances().compute()
    assert scores.pairs == 0
    assert np.isnan([scores.hausdorff, scores.percentile, scores.average, scores.worst]).all()


@pytest.mark.parametrize("spacing", [0, -1, (1, 2, 3), (1, 0), float("nan"), ()])
def test_refuses_sizes_that_are_none(spacing: object) -> None:
    with pytest.raises(ValueError, match="spacing must be a number > 0, or 2 of them"):
        surface_distance(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing=spacing)


def test_says_what_is_wrong() -> None:
    mask = np.ones((2, 2), bool)
    with pytest.raises(TypeError, match="target must be a bool array, got int64"):
        surface_distance(mask, mask.astype(int))
    with pytest.raises(ValueError, match="one shape"):
        surface_distance(mask, mask[:1])
    with pytest.raises(ValueError, match=r"percentile must be in \[0, 100\], got 101"):
        surface_distance(mask, mask, percentile=101)
    with pytest.raises(ValueError, match=r"q must be in \[0, 100\]"):
        SurfaceDistances(q=-1.0)
