"""The paper's claims on its estimator, as statistics over many draws with their standard errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linocut import mixers
from linocut.ops import feature_maps

DIM, DRAWS = 4, 400_000
KINDS = ("positive", "hyperbolic", "trigonometric")


def vectors() -> tuple[Tensor, Tensor]:
    """A query and a key of length 0.6, at an angle: small enough for the mean of exponentials to settle."""
    q, k = torch.zeros(2, DIM, dtype=torch.float64)
    q[:2], k[1:3] = 0.6 * 0.5**0.5, 0.6 * 0.5**0.5
    return q, k


def estimates(kind: str, *, orthogonal: bool) -> Tensor:
    """Estimates of exp(qᵀk), each from DIM random vectors of its own: one block of the orthogonal ones."""
    q, k = vectors()
    generator = torch.Generator().manual_seed(0)
    projection = feature_maps.draw_projection(DRAWS * DIM, DIM, orthogonal=orthogonal, generator=generator)
    products = feature_maps.random_features(kind, q, projection) * feature_maps.random_features(kind, k, projection)
    return products.reshape(-1, DRAWS, DIM).sum(dim=(0, 2)) * DRAWS


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_estimator_is_unbiased(kind: str, orthogonal: bool) -> None:
    q, k = vectors()
    found = estimates(kind, orthogonal=orthogonal)
    error = found.std().item() / DRAWS**0.5
    exact = (q @ k).exp().item()
    assert error < 0.05 * exact
    assert abs(found.mean().item() - exact) < 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_orthogonal_features_have_the_lower_variance(kind: str) -> None:
    squares = []
    for orthogonal in (False, True):
        found = estimates(kind, orthogonal=orthogonal)
        squares.append((found - found.mean()).square())
    difference = squares[0].mean() - squares[1].mean()
    error = ((squares[0].var() + squares[1].var()) / DRAWS).sqrt()
    assert difference > 3 * error


def test_positive_features_win_where_weights_are_small() -> None:
    # Lemma 2: where qᵀk is very negative the positive estimator's error vanishes, the trigonometric one's grows
    q = torch.full((DIM,), 1.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    errors = dict.fromkeys(("positive", "trigonometric"), 0.0)
    for _ in range(200):
        projection = feature_maps.draw_projection(2 * DIM, DIM, generator=generator)
        for kind in errors:
            mapped = [feature_maps.random_features(kind, x, projection) for x in (q, -q)]
            errors[kind] += float((mapped[0] @ mapped[1] - (-q @ q).exp()) ** 2)
    assert errors["positive"] < 1e-6 * errors["trigonometric"]


def test_orthogonal_rows_are_orthogonal_and_as_long_as_gaussian_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = feature_maps.draw_projection(2 * DIM + 3, DIM, generator=generator)
    for block in rows.split(DIM):
        angles = torch.nn.functional.normalize(block) @ torch.nn.functional.normalize(block).T
        torch.testing.assert_close(angles, torch.eye(len(block), dtype=torch.float64), rtol=0, atol=1e-12)
    squares = feature_maps.draw_projection(DRAWS, DIM, generator=generator).square().sum(dim=1)
    # a chi-squared variable of DIM degrees: mean DIM, variance 2 DIM
    assert abs(squares.mean().item() - DIM) < 4 * (2 * DIM / DRAWS) ** 0.5


def test_more_features_come_nearer_to_softmax_attention() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(1, 50, 12)
        errors = []
        for features in (8, 512):
            total = 0.0
            for seed in range(10):
                mixer = mixers.build("performer", 12, causal=False, heads=2, features=features, seed=seed)
                torch.manual_seed(1)
                for parameter in mixer.parameters():
                    torch.nn.init.normal_(parameter, std=0.15)
                q = mixer.query(x).unflatten(-1, (2, -1)).transpose(1, 2)
                k, v = mixer.key_value(x).unflatten(-1, (2, 2, -1)).permute(2, 0, 3, 1, 4)
                exact = mixer.out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
                total += (mixer(x) - exact).square().mean().item()
            errors.append(total)
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("causal", [False, True])
def test_a_seed_fixes_the_vectors_and_redraw_changes_them(causal: bool) -> None:
    def build(**options: int) -> Tensor:
        return mixers.build("performer", 12, causal=causal, heads=2, **options)

    one, two, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(one.projection, two.projection)
    assert not torch.equal(one.projection, other.projection)
    one.redraw(seed=4)
    assert torch.equal(one.projection, other.projection)
    one.redraw()
    assert not torch.equal(one.projection, other.projection)
    assert "projection" in one.state_dict()


def test_the_two_forms_share_their_parameters() -> None:
    whole, causal = (mixers.build("performer", 12, causal=form, heads=2) for form in (False, True))
    causal.load_state_dict(whole.state_dict())
    x = torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(causal(x)[:, -1], whole(x)[:, -1], rtol=0, atol=1e-5)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="got d_model=12 and heads=5"):
        mixers.build("performer", 12, heads=5)
    with pytest.raises(ValueError, match="got 'cosine'"):
        mixers.build("performer", 12, kind="cosine")
    with pytest.raises(ValueError, match="features and dim must be >= 1, got 0"):
        mixers.build("performer", 12, features=0)
