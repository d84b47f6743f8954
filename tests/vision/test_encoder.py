"""The encoder: any size, features that move with the image, and work that grows with the pixels."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from linocut.mixers import SetMixer
from linocut.vision.encoder import BASE, EncoderConfig, ImageEncoder, Octave, normalize, octave_count
from linocut.vision.layers import GlobalBlock

STRIDES = {"pixels": 1, "stride2": 2, "stride4": 4, "stride8": 8, "stride16": 16}
NARROW = EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ImageEncoder(NARROW).eval()


@pytest.fixture(scope="module")
def local_encoder() -> ImageEncoder:
    """The same without its global branches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ImageEncoder(NARROW).eval()
    for module in net.modules():
        if isinstance(module, GlobalBlock):
            torch.nn.init.zeros_(module.gain)
    return net


@pytest.fixture(scope="module")
def shapes_only() -> ImageEncoder:
    """One that computes shapes and counts work, but no numbers: images of any size are free."""
    with torch.device("meta"):
        return ImageEncoder(NARROW).eval()


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "count"),
    [((1, 1), 1), ((256, 256), 1), ((257, 1), 2), ((512, 512), 2), ((10, 513), 3), ((4096, 4096), 5), ((1, 50_000), 9)],
)
def test_octaves_halve_the_image_until_it_fits_one_window(size: tuple[int, int], count: int) -> None:
    assert octave_count(*size) == count
    assert max(size) <= BASE << (count - 1)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (1, 500), (500, 1), (256, 256), (257, 300), (31, 513)])
@torch.no_grad()
def test_any_size_is_encoded(encoder: ImageEncoder, size: tuple[int, int]) -> None:
    octaves = encoder(noise(*size))
    assert len(octaves) == octave_count(*size)
    channels = {"pixels": 3, "stride2": 16, "stride4": 16, "stride8": 24, "stride16": 32}
    for level, octave in enumerate(octaves):
        padded = [32 * -(-extent // (32 << level)) for extent in size]
        for name, stride in STRIDES.items():
            part = getattr(octave, name)
            assert part.shape == (1, channels[name], padded[0] // stride, padded[1] // stride)
            assert part.isfinite().all()


@torch.no_grad()
def test_an_octave_is_the_image_at_half_the_size(encoder: ImageEncoder) -> None:
    image = noise(258, 130)
    half = torch.nn.functional.avg_pool2d(image, 2)
    for name in STRIDES:
        torch.testing.assert_close(
            getattr(encoder(image)[1], name), getattr(encoder.encode_octave(half), name), rtol=0, atol=1e-6
        )


@torch.no_grad()
def test_the_members_of_a_batch_do_not_see_each_other(encoder: ImageEncoder) -> None:
    images = torch.cat([noise(64, 96), noise(64, 96, seed=1)])
    together, alone = encoder.encode_octave(images), encoder.encode_octave(images[1:])
    for field in fields(Octave):
        torch.testing.assert_close(getattr(together, field.name)[1:], getattr(alone, field.name), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_local_features_move_with_the_image(local_encoder: ImageEncoder) -> None:
    """A patch on a wide empty canvas, moved by whole tokens of the coarsest features."""
    down, right = 32, 64
    canvas = torch.zeros(1, 3, 1024, 1024)
    canvas[..., 480:544, 448:512] = noise(64, 64)
    before = local_encoder.encode_octave(canvas)
    after = local_encoder.encode_octave(canvas.roll((down, right), dims=(2, 3)))
    for name, stride in STRIDES.items():
        one = getattr(before, name)
        other = getattr(after, name).roll((-down // stride, -right // stride), dims=(2, 3))
        # the features see some 430 pixels far, and must not see where the canvas ends
        inner = (..., slice(448 // stride, 512 // stride), slice(448 // stride, 512 // stride))
        assert one[inner].std() > 0
        torch.testing.assert_close(other[inner], one[inner], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("power", [1, 2])
@torch.no_grad()
def test_the_octaves_move_with_the_image(encoder: ImageEncoder, power: int) -> None:
    """A shift by 32 · 2**k pixels moves octave k by 32, the coarsest token."""
    canvas = torch.zeros(1, 3, 520, 520)
    canvas[..., 64:128, 32:96] = noise(64, 64)
    moved = canvas.roll((32 << power, 32 << power), dims=(2, 3))
    before, after = encoder(canvas)[power].pixels, encoder(moved)[power].pixels
    assert torch.equal(before[..., :64, :64], after[..., 32:96, 32:96])
    assert before[..., :64, :64].any()


@torch.no_grad()
def test_global_context_reaches_the_far_corner(encoder: ImageEncoder, local_encoder: ImageEncoder) -> None:
    image = noise(32, 1024)
    other = image.clone()
    other[..., :16, :16] = 3
    for net, reaches in ((encoder, True), (local_encoder, False)):
        one, two = net.encode_octave(image), net.encode_octave(other)
        assert bool((one.stride16[..., -1, -1] != two.stride16[..., -1, -1]).any()) is reaches


def test_the_work_is_linear_in_the_pixels(shapes_only: ImageEncoder) -> None:
    counts = []
    for side in (1024, 2048, 4096):
        with FlopCounterMode(display=False) as counter:
            shapes_only.encode_octave(torch.zeros(1, 3, side, side, device="meta"))
        counts.append(counter.get_total_flops())
    assert counts[0] > 0
    assert counts[1] == 4 * counts[0]
    assert counts[2] == 4 * counts[1]


def test_the_whole_pyramid_mixes_four_thirds_of_the_first_octave_s_tokens(shapes_only: ImageEncoder) -> None:
    tokens: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1]))
        for module in shapes_only.modules()
        if isinstance(module, SetMixer)
    ]
    shapes_only(torch.zeros(1, 3, 4096, 4096, device="meta"))
    for hook in hooks:
        hook.remove()
    first = (4096 // 16) ** 2 + (4096 // 8) ** 2
    assert sum(tokens) == sum(first // 4**level for level in range(5))
    assert sum(tokens) < 4 / 3 * first


def test_gradients_reach_every_weight(encoder: ImageEncoder) -> None:
    octaves = encoder(noise(64, 64))
    sum(getattr(octaves[0], name).square().mean() for name in STRIDES if name != "pixels").backward()
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    encoder.zero_grad(set_to_none=True)
    assert not missing


def test_normalize_centres_the_values_as_the_trunk_was_trained() -> None:
    image = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert normalize(image).flatten().tolist() == [-127 / 128, 0.0, 1.0]
    assert normalize(image, torch.bfloat16).dtype == torch.bfloat16
    assert normalize(torch.zeros(2, 5, 7, 3, dtype=torch.uint8)).shape == (2, 3, 5, 7)
