"""Code written for Segment Anything, run unchanged."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import linocut
from linocut.data.rle import decode_rle
from linocut.vision.options import EverythingOptions
from linocut.vision.prompts import Prompt
from linocut.vision.sam import SamPredictor, sam_model_registry
from linocut.vision.sam_generator import SamAutomaticMaskGenerator
from linocut.vision.segmenter import Segmenter
from linocut.vision.weights import bundled_path

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
    assert linocut.sam_model_registry is sam_model_registry


REQUIRED = inspect.Parameter.empty
PROMPTS = {"mask_input": None, "multimask_output": True, "return_logits": False}
# The signatures of segment_anything 1.0 as it is published: every argument with its default, in order.
OFFICIAL: list[tuple[Any, dict[str, Any]]] = [
    (SamPredictor, {"sam_model": REQUIRED}),
    (SamPredictor.set_image, {"self": REQUIRED, "image": REQUIRED, "image_format": "RGB"}),
    (
        SamPredictor.set_torch_image,
        {"self": REQUIRED, "transformed_image": REQUIRED, "original_image_size": REQUIRED},
    ),
    (SamPredictor.predict, {"self": REQUIRED, "point_coords": None, "point_labels": None, "box": None, **PROMPTS}),
    (
        SamPredictor.predict_torch,
        {"self": REQUIRED, "point_coords": REQUIRED, "point_labels": REQUIRED, "boxes": None, **PROMPTS},
    ),
    (SamPredictor.get_image_embedding, {"self": REQUIRED}),
    (SamPredictor.reset_image, {"self": REQUIRED}),
    (
        SamAutomaticMaskGenerator,
        {
            "model": REQUIRED,
            "points_per_side": 32,
            "points_per_batch": 64,
            "pred_iou_thresh": 0.88,
            "stability_score_thresh": 0.95,
            "stability_score_offset": 1.0,
            "box_nms_thresh": 0.7,
            "crop_n_layers": 0,
            "crop_nms_thresh": 0.7,
            "crop_overlap_ratio": 512 / 1500,
            "crop_n_points_downscale_factor": 1,
            "point_grids": None,
            "min_mask_region_area": 0,
            "output_mode": "binary_mask",
        },
    ),
    (SamAutomaticMaskGenerator.generate, {"self": REQUIRED, "image": REQUIRED}),
]
OUR_DEFAULTS = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.5, "stability_score_offset": 0.5}


@pytest.mark.parametrize(("ours", "official"), OFFICIAL, ids=[ours.__qualname__ for ours, _ in OFFICIAL])
def test_arguments_are_called_and_ordered_as_the_official_ones(ours: Any, official: dict[str, Any]) -> None:
    taken = list(inspect.signature(ours).parameters.values())
    assert [parameter.name for parameter in taken[: len(official)]] == list(official)
    for parameter in taken[: len(official)]:
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        if official[parameter.name] is not REQUIRED:
            assert parameter.default == OUR_DEFAULTS.get(parameter.name, official[parameter.name])
    assert all(added.kind is inspect.Parameter.KEYWORD_ONLY for added in taken[len(official) :])


@pytest.mark.parametrize("key", ["default", "vit_h", "vit_l", "vit_b"])
def test_a_script_written_for_segment_anything(key: str, coins: Image) -> None:
    sam = linocut.sam_model_registry[key](checkpoint=None)
    sam.to(device="cpu")
    assert sam.device == torch.device("cpu")
    predictor = linocut.SamPredictor(sam_model=sam)
    assert predictor.device == sam.device
    predictor.set_image(coins)
    masks, _, _ = predictor.predict(np.array([COIN]), np.array([1]), multimask_output=False)
    assert masks.shape == (1, HEIGHT, WIDTH)
    generator = linocut.SamAutomaticMaskGenerator(sam, 8, 64, 0.5)
    assert (generator.options.points_per_side, generator.options.points_per_batch) == (8, 64)
    assert isinstance(generator.predictor, SamPredictor)
    assert generator.predictor.model is sam


def test_the_registry_has_the_official_keys_and_no_other() -> None:
    assert set(sam_model_registry) == {"default", "vit_h", "vit_l", "vit_b"}


def test_a_checkpoint_is_linocut_s_own(tmp_path: Path) -> None:
    for checkpoint in ("sam_vit_h_4b8939.pth", tmp_path / "sam.pth"):
        with pytest.raises(ValueError, match=r"\.safetensors file .*, or None .*, got .*pth'.* cannot use Segment"):
            sam_model_registry["vit_h"](checkpoint=checkpoint)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*mine\.safetensors"):
        sam_model_registry["vit_h"](tmp_path / "mine.safetensors")
    loaded = sam_model_registry["default"](bundled_path())
    assert isinstance(loaded, Segmenter)


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


@pytest.mark.parametrize(
    ("point", "meant"),
    [
        ((0, 0), (0.5, 0.5)),
        ((WIDTH - 1, HEIGHT - 1), (WIDTH - 0.5, HEIGHT - 0.5)),
        ((WIDTH, 5), (WIDTH, 5.5)),
        ((400, -7.5), (WIDTH, 0)),
        ((-3, 1e6), (0, HEIGHT)),
    ],
)
def test_points_mean_pixels_and_are_moved_into_the_image(
    predictor: SamPredictor, point: tuple[float, float], meant: tuple[float, float]
) -> None:
    masks, _, _ = predictor.predict(np.array([point]), np.array([1]), multimask_output=False)
    assert predictor.features is not None
    expected = predictor.model.decode(predictor.features, [Prompt((meant,), (True,))])[0]
    np.testing.assert_array_equal(masks[0], expected.array)


@pytest.mark.parametrize("multimask_output", [True, False])
def test_where_no_object_is_named_masks_are_empty(predictor: SamPredictor, *, multimask_output: bool) -> None:
    negative = {"point_coords": np.array([COIN, OTHER]), "point_labels": np.array([0, -1])}
    nothing = np.full((1, 256, 256), -5.0)
    count = 3 if multimask_output else 1
    for prompts in (negative, {"mask_input": nothing}, negative | {"mask_input": nothing}):
        masks, scores, low = predictor.predict(**prompts, multimask_output=multimask_output)
        assert masks.shape == (count, HEIGHT, WIDTH)
        assert masks.dtype == np.bool_
        assert not masks.any()
        assert scores.tolist() == [0.0] * count
        assert low.shape == (count, 256, 256)
        assert (low < 0).all()
        logits, _, _ = predictor.predict(**prompts, multimask_output=multimask_output, return_logits=True)
        assert (logits < 0).all()


def test_an_object_that_is_not_named_leaves_the_others_of_its_batch_alone(predictor: SamPredictor) -> None:
    points = torch.tensor([[COIN], [OTHER], [OTHER]], dtype=torch.float32)
    masks, scores, _ = predictor.predict_torch(points, torch.tensor([[1], [0], [1]]))
    expected, expected_scores, _ = predictor.predict_torch(points[[0, 2]], torch.tensor([[1], [1]]))
    assert torch.equal(masks[[0, 2]], expected)
    assert torch.equal(scores[[0, 2]], expected_scores)
    assert not masks[1].any()
    assert not scores[1].any()


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
        (POINT | {"point_labels": np.array([-1])}, "got nothing"),
        (POINT | {"point_coords": np.array([[np.nan, 5]])}, "points must be finite"),
        ({"box": np.array([400, 5, 500, 9])}, "touch the image"),
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
