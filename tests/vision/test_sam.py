"""Code written for Segment Anything, run unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import linocut
from linocut.data.rle import decode_rle
from linocut.vision.options import EverythingOptions
from linocut.vision.prompts import Prompt
from linocut.vision.sam import SamAutomaticMaskGenerator, SamPredictor
from linocut.vision.segmenter import Segmenter

Image = NDArray[np.uint8]
HEIGHT, WIDTH = 303, 384
COIN, OTHER = (335, 43), (155, 51)


@pytest.fixture(scope="module")
def predictor(model: Segmenter, coins: Image) -> SamPredictor:
    predictor = SamPredictor(model)
    predictor.set_image(coins)
    return predictor


def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_the_names_are_at_the_top() -> None:
    assert linocut.SamPredictor is SamPredictor
    assert linocut.SamAutomaticMaskGenerator is SamAutomaticMaskGenerator


def test_without_a_model_the_bundled_one_is_loaded() -> None:
    predictor = SamPredictor()
    assert isinstance(predictor.model, Segmenter)
    assert predictor.device == torch.device("cpu")


def test_the_example_of_the_official_notebook(model: Segmenter, coins: Image) -> None:
    predictor = SamPredictor(model)
    predictor.set_image(coins)
    masks, scores, logits = predictor.predict(
        point_coords=np.array([COIN]), point_labels=np.array([1]), multimask_output=True
    )
    assert masks.shape == (3, HEIGHT, WIDTH)
    assert masks.dtype == np.bool_
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    assert logits.shape == (3, 256, 256)
    assert logits.dtype == np.float32
    best = int(np.argmax(scores))
    assert masks[best][COIN[1], COIN[0]]
    assert 800 < masks[best].sum() < 5000

    again, score, _ = predictor.predict(
        point_coords=np.array([COIN, OTHER]),
        point_labels=np.array([1, 0]),
        mask_input=logits[best, :, :][None, :, :],
        multimask_output=False,
    )
    assert again.shape == (1, HEIGHT, WIDTH)
    assert score.shape == (1,)
    assert iou(again[0], masks[best]) > 0.5
    assert not again[0][OTHER[1], OTHER[0]]

    boxed, _, _ = predictor.predict(
        point_coords=None, point_labels=None, box=np.array([300, 10, 370, 80])[None, :], multimask_output=False
    )
    assert iou(boxed[0], masks[best]) > 0.5


def test_batches_of_boxes_as_in_the_official_notebook(predictor: SamPredictor, coins: Image) -> None:
    boxes = torch.tensor([[300, 10, 370, 80], [128, 25, 182, 78]], device=predictor.device)
    transformed = predictor.transform.apply_boxes_torch(boxes, coins.shape[:2])
    masks, scores, logits = predictor.predict_torch(
        point_coords=None, point_labels=None, boxes=transformed, multimask_output=False
    )
    assert masks.shape == (2, 1, HEIGHT, WIDTH)
    assert masks.dtype == torch.bool
    assert scores.shape == (2, 1)
    assert logits.shape == (2, 1, 256, 256)
    for box, mask, score in zip(boxes, masks, scores, strict=True):
        alone, alone_score, _ = predictor.predict(box=box.numpy(), multimask_output=False)
        assert iou(mask.numpy(), alone) > 0.99
        assert score.item() == pytest.approx(alone_score.item(), abs=1e-3)


def test_batches_of_points_and_masks(predictor: SamPredictor) -> None:
    points = torch.tensor([[COIN, OTHER], [OTHER, (0, 0)]], dtype=torch.float32)
    labels = torch.tensor([[1, 0], [1, -1]])
    masks, scores, low = predictor.predict_torch(points, labels)
    assert masks.shape == (2, 3, HEIGHT, WIDTH)
    assert scores.shape == (2, 3)
    # the second object's second point is padding
    alone, _, _ = predictor.predict(np.array([OTHER]), np.array([1]))
    assert iou(masks[1].numpy(), alone) > 0.99
    again, _, _ = predictor.predict_torch(points, labels, mask_input=low[:, :1], multimask_output=False)
    assert again.shape == (2, 1, HEIGHT, WIDTH)


def test_it_is_the_segmenter_underneath(predictor: SamPredictor) -> None:
    masks, scores, _ = predictor.predict(np.array([COIN, OTHER]), np.array([1, 0]))
    prompt = Prompt(((COIN[0] + 0.5, COIN[1] + 0.5), (OTHER[0] + 0.5, OTHER[1] + 0.5)), (True, False))
    assert predictor.features is not None
    expected = predictor.model.decode(predictor.features, [prompt])[0]
    for mask, score, candidate in zip(masks, scores, expected.candidates, strict=True):
        np.testing.assert_array_equal(mask, candidate.array)
        assert score == np.float32(candidate.score)


def test_logits_are_positive_in_the_masks(predictor: SamPredictor) -> None:
    arguments = {"point_coords": np.array([COIN]), "point_labels": np.array([1])}
    masks, _, _ = predictor.predict(**arguments)
    logits, _, _ = predictor.predict(**arguments, return_logits=True)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, masks)
    points, labels = torch.tensor([[COIN]], dtype=torch.float32), torch.tensor([[1]])
    batched, _, _ = predictor.predict_torch(points, labels, return_logits=True)
    assert batched.dtype == torch.float32
    np.testing.assert_array_equal(batched[0].numpy() > 0, masks)


def test_low_resolution_masks_are_the_masks(predictor: SamPredictor) -> None:
    masks, _, low = predictor.predict(np.array([COIN]), np.array([1]))
    cell = WIDTH / 256
    ys, xs = ((np.arange(256) + 0.5) * cell for _ in range(2))
    rows = ys < HEIGHT
    sampled = masks[:, ys[rows].astype(int)][:, :, xs.astype(int)]
    assert iou(low[:, rows] > 0, sampled) > 0.85
    assert (low[:, ~rows] < 0).all()


def test_a_mask_input_alone_is_corrected(predictor: SamPredictor) -> None:
    masks, _, low = predictor.predict(box=np.array([300, 10, 370, 80]), multimask_output=False)
    again, scores, _ = predictor.predict(mask_input=low)
    assert again.shape == (3, HEIGHT, WIDTH)
    assert scores.shape == (3,)
    assert iou(again[0], masks[0]) > 0.5


def test_an_empty_mask_input_beside_a_point_says_nothing(predictor: SamPredictor) -> None:
    arguments = {"point_coords": np.array([COIN]), "point_labels": np.array([1])}
    plain, _, _ = predictor.predict(**arguments)
    other, _, _ = predictor.predict(**arguments, mask_input=np.full((1, 256, 256), -5.0))
    np.testing.assert_array_equal(plain, other)


def test_points_mean_pixels_and_the_far_edge_is_still_inside(predictor: SamPredictor) -> None:
    for x, y in ((0, 0), (WIDTH - 1, HEIGHT - 1), (WIDTH - 0.2, HEIGHT), (WIDTH, 5)):
        masks, _, _ = predictor.predict(np.array([[x, y]]), np.array([1]), multimask_output=False)
        assert masks.shape == (1, HEIGHT, WIDTH)


def test_blue_first(model: Segmenter, coins: Image) -> None:
    colourful = coins * np.array([1, 0, 0], np.uint8)
    results = []
    for image, image_format in ((colourful, "RGB"), (colourful[..., ::-1], "BGR")):
        predictor = SamPredictor(model)
        predictor.set_image(image, image_format)
        results.append(predictor.predict(np.array([COIN]), np.array([1]))[2])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_tensor_is_as_good_as_an_array(predictor: SamPredictor, coins: Image, dtype: torch.dtype) -> None:
    other = SamPredictor(predictor.model)
    image = other.transform.apply_image(coins)
    tensor = torch.as_tensor(image).permute(2, 0, 1).contiguous()[None].to(dtype)
    other.set_torch_image(other.transform.apply_image_torch(tensor), coins.shape[:2])
    assert other.features is not None
    assert predictor.features is not None
    assert torch.equal(other.features.octaves[0].stride16, predictor.features.octaves[0].stride16)


def test_transform_changes_nothing(coins: Image, predictor: SamPredictor) -> None:
    transform, points, boxes = predictor.transform, np.array([COIN]), np.array([[1, 2, 3, 4]])
    assert transform.apply_image(coins) is coins
    assert transform.apply_coords(points, coins.shape[:2]) is points
    assert transform.apply_boxes(boxes, coins.shape[:2]) is boxes
    tensor = torch.tensor(points)
    assert transform.apply_coords_torch(tensor, coins.shape[:2]) is tensor
    assert transform.apply_boxes_torch(tensor, coins.shape[:2]) is tensor
    assert transform.apply_image_torch(tensor) is tensor


def test_the_embedding_and_the_sizes(predictor: SamPredictor) -> None:
    assert predictor.is_image_set
    assert predictor.original_size == predictor.input_size == (HEIGHT, WIDTH)
    embedding = predictor.get_image_embedding()
    assert embedding.shape == (1, predictor.model.net.config.channels16, 320 // 16, 384 // 16)
    assert embedding.dtype == torch.float32


def test_before_an_image_is_set_and_after_it_is_reset(untrained: Segmenter, coins: Image) -> None:
    predictor = SamPredictor(untrained)
    calls = (
        lambda: predictor.predict(np.array([COIN]), np.array([1])),
        lambda: predictor.predict_torch(torch.tensor([[COIN]]), torch.tensor([[1]])),
        predictor.get_image_embedding,
    )
    for _ in range(2):
        assert not predictor.is_image_set
        assert predictor.original_size is None
        for call in calls:
            with pytest.raises(RuntimeError, match=r"no image is set: call set_image\(image\)"):
                call()
        predictor.set_image(coins)
        predictor.reset_image()


def test_an_image_that_is_refused_leaves_none_set(untrained: Segmenter, coins: Image) -> None:
    """The next answer would otherwise be about the image before."""
    predictor = SamPredictor(untrained)
    for refused, message in (
        (lambda: predictor.set_image(coins[..., 0]), "encode takes a non-empty"),
        (lambda: predictor.set_image(coins, "RGBA"), "image_format must be RGB or BGR, got 'RGBA'"),
        (lambda: predictor.set_torch_image(torch.zeros(3, 9, 9), (9, 9)), "one RGB image"),
    ):
        predictor.set_image(coins)
        with pytest.raises(ValueError, match=message):
            refused()
        assert not predictor.is_image_set


@pytest.mark.parametrize(
    ("tensor", "size", "message"),
    [
        (torch.zeros(3, 9, 9), (9, 9), r"shape \(1, 3, H, W\), got \(3, 9, 9\)"),
        (torch.zeros(2, 3, 9, 9), (9, 9), r"got \(2, 3, 9, 9\)"),
        (torch.zeros(1, 3, 1024, 768), (2048, 1536), "must be the original size"),
        (torch.full((1, 3, 9, 9), 300.0), (9, 9), "values must be 0 to 255, got 300 to 300"),
        (torch.full((1, 3, 9, 9), -1.0), (9, 9), "values must be 0 to 255"),
        (torch.full((1, 3, 9, 9), torch.nan), (9, 9), "values must be 0 to 255"),
    ],
)
def test_tensors_that_are_refused(
    untrained: Segmenter, tensor: torch.Tensor, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SamPredictor(untrained).set_torch_image(tensor, size)


POINT = {"point_coords": np.array([COIN]), "point_labels": np.array([1])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a positive point, a box or a mask, got nothing"),
        ({"point_coords": np.array([COIN])}, "go together: one of them is missing"),
        ({"point_labels": np.array([1])}, "go together: one of them is missing"),
        (POINT | {"point_coords": np.array(COIN)}, r"got \(2,\) and \(1,\)"),
        (POINT | {"point_labels": np.array([1, 0])}, r"got \(1, 2\) and \(2,\)"),
        (POINT | {"point_labels": np.array([2])}, r"point_labels must be 1 .*, got \[2\]"),
        (POINT | {"point_labels": np.array([0])}, "got only negative points"),
        (POINT | {"point_labels": np.array([-1])}, "got nothing"),
        (POINT | {"point_coords": np.array([[400, 5]])}, "lies outside the image"),
        (POINT | {"point_coords": np.array([[-1, 5]])}, "lies outside the image"),
        ({"box": np.array([1, 2, 3])}, "got 3 numbers"),
        ({"box": np.array([5, 5, 5, 9])}, "x0 < x1"),
        (
            POINT | {"mask_input": np.zeros((1, 64, 64))},
            r"mask_input must have shape \(1, 256, 256\), got \(1, 64, 64\)",
        ),
    ],
)
def test_prompts_that_are_refused(predictor: SamPredictor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**arguments)


def test_batches_that_are_refused(predictor: SamPredictor) -> None:
    points, labels = torch.zeros(2, 1, 2), torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"same number of objects, got \{'point_coords': 2, 'point_labels': 1\}"):
        predictor.predict_torch(points, labels[:1])
    with pytest.raises(ValueError, match="got none"):
        predictor.predict_torch(None, None)
    with pytest.raises(ValueError, match="got none"):
        predictor.predict_torch(points[:0], labels[:0])
    with pytest.raises(ValueError, match="go together"):
        predictor.predict_torch(points, None)


def test_the_generator_gives_the_records_of_everything(model: Segmenter, coins: Image) -> None:
    options = {"points_per_side": 6, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.3, "output_mode": "coco_rle"}
    generator = SamAutomaticMaskGenerator(model, **options)
    records = generator.generate(coins)
    expected = model.everything(coins, **options).records()
    assert records == expected
    assert records
    for record in records:
        assert decode_rle(record["segmentation"]).sum() == record["area"]


def test_the_generator_takes_its_options_as_the_official_one(untrained: Segmenter) -> None:
    assert SamAutomaticMaskGenerator(untrained).options == EverythingOptions()
    assert SamAutomaticMaskGenerator(untrained, 16).options.points_per_side == 16
    grids = [np.array([[0.5, 0.5]])]
    assert SamAutomaticMaskGenerator(untrained, None, point_grids=grids).options.point_grids is grids
    with pytest.raises(TypeError, match="points_per_sid"):
        SamAutomaticMaskGenerator(untrained, points_per_sid=3)
    with pytest.raises(ValueError, match="points_per_batch must be >= 1, got 0"):
        SamAutomaticMaskGenerator(untrained, points_per_batch=0)
