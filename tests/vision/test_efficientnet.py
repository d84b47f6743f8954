"""The trunk: that folding changes nothing, that strides are strides, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from linocut.vision.efficientnet import TRUNK_CHANNELS, EfficientNetLite0

# expansion, channels in and out, stride and kernel of each of the 15 blocks, written out from the paper's table 1
BLOCKS = [
    (1, 32, 16, 1, 3),
    (6, 16, 24, 2, 3),
    (6, 24, 24, 1, 3),
    (6, 24, 40, 2, 5),
    (6, 40, 40, 1, 5),
    (6, 40, 80, 2, 3),
    (6, 80, 80, 1, 3),
    (6, 80, 80, 1, 3),
    (6, 80, 112, 1, 5),
    (6, 112, 112, 1, 5),
    (6, 112, 112, 1, 5),
    (6, 112, 192, 2, 5),
    (6, 192, 192, 1, 5),
    (6, 192, 192, 1, 5),
    (6, 192, 192, 1, 5),
]
ENDS = {2: 0, 4: 2, 8: 4, 16: 10, 32: 14}
"""After which block the features of a stride are read."""

EPSILON = 1e-3
State = dict[str, Tensor]


def published_weights() -> State:
    """Random weights in the layout of the published file, with batch normalisation that has seen data."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def add(conv: str, norm: str, out: int, fan: int, kernel: int) -> None:
        state[f"{conv}.weight"] = torch.randn(out, fan, kernel, kernel, generator=generator) / (fan * kernel**2) ** 0.5
        state[f"{norm}.weight"] = torch.rand(out, generator=generator) + 0.5
        state[f"{norm}.bias"] = torch.randn(out, generator=generator) / 2
        state[f"{norm}.running_mean"] = torch.randn(out, generator=generator) / 2
        state[f"{norm}.running_var"] = torch.rand(out, generator=generator) + 0.5

    add("_conv_stem", "_bn0", 32, 3, 3)
    for index, (expansion, channels_in, channels, _, kernel) in enumerate(BLOCKS):
        root, middle = f"_blocks.{index}", channels_in * expansion
        if expansion > 1:
            add(f"{root}._expand_conv", f"{root}._bn0", middle, channels_in, 1)
        add(f"{root}._depthwise_conv", f"{root}._bn1", middle, 1, kernel)
        add(f"{root}._project_conv", f"{root}._bn2", channels, middle, 1)
    return state


def reference(state: State, image: Tensor) -> dict[int, Tensor]:
    """Convolution, then batch normalisation in evaluation mode, as published; features by stride."""

    def step(x: Tensor, conv: str, norm: str, *, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(
            x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=len(weight) if depthwise else 1
        )
        statistics = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics, eps=EPSILON)

    x = functional.relu6(step(image, "_conv_stem", "_bn0", stride=2))
    outputs = []
    for index, (expansion, channels_in, channels, stride, _) in enumerate(BLOCKS):
        root, y = f"_blocks.{index}", x
        if expansion > 1:
            y = functional.relu6(step(y, f"{root}._expand_conv", f"{root}._bn0"))
        y = functional.relu6(step(y, f"{root}._depthwise_conv", f"{root}._bn1", stride=stride, depthwise=True))
        y = step(y, f"{root}._project_conv", f"{root}._bn2")
        x = x + y if stride == 1 and channels_in == channels else y
        outputs.append(x)
    return {stride: outputs[block] for stride, block in ENDS.items()}


@pytest.fixture
def published(tmp_path: Path) -> tuple[State, Path]:
    """Weights as published, and the file of them."""
    state = published_weights()
    torch.save(state, tmp_path / "weights.pth")
    return state, tmp_path / "weights.pth"


def test_folded_weights_are_convolution_and_batch_normalisation(published: tuple[State, Path]) -> None:
    state, path = published
    trunk = EfficientNetLite0()
    trunk.load_imagenet(path)
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = reference({name: value.double() for name, value in state.items()}, image.double())
    for stride, features in trunk(image).items():
        torch.testing.assert_close(features.double(), expected[stride], rtol=1e-4, atol=1e-4)


def test_weights_the_trunk_has_no_use_for_are_passed_over(published: tuple[State, Path]) -> None:
    state, path = published
    first, second = EfficientNetLite0(), EfficientNetLite0()
    first.load_imagenet(path)
    torch.save(state | {"_fc.weight": torch.ones(1000, 1280), "_bn0.num_batches_tracked": torch.tensor(7)}, path)
    second.load_imagenet(path)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_features_have_the_strides_and_channels_they_say() -> None:
    features = EfficientNetLite0()(torch.zeros(1, 3, 64, 160))
    assert {stride: tuple(x.shape[1:]) for stride, x in features.items()} == {
        stride: (channels, 64 // stride, 160 // stride) for stride, channels in TRUNK_CHANNELS.items()
    }


def test_nothing_is_normalised_over_the_image_or_the_batch() -> None:
    trunk = EfficientNetLite0()
    assert not [m for m in trunk.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        together, alone = trunk.train()(images), trunk.eval()(images[:1])
    for stride, features in alone.items():
        torch.testing.assert_close(together[stride][:1], features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", ["_conv_stem.weight", "_blocks.7._bn1.running_var", "_blocks.14._bn2.bias"])
def test_a_missing_weight_is_named(published: tuple[State, Path], missing: str) -> None:
    state, path = published
    del state[missing]
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"lack '{missing}'; expected the layout of efficientnet-lite0"):
        EfficientNetLite0().load_imagenet(path)


def test_a_weight_of_another_shape_is_named(published: tuple[State, Path]) -> None:
    state, path = published
    state["_blocks.0._project_conv.weight"] = torch.ones(16, 16, 1, 1)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"does not hold EfficientNet-Lite0 weights: (.|\n)*stages.0.0.project.weight"):
        EfficientNetLite0().load_imagenet(path)
