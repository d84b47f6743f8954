"""A session as a person uses it: click, undo, redo, choose, accept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from linocut.vision.masks import Mask
from linocut.vision.prompts import Prompt
from linocut.vision.segmenter import Segmenter
from linocut.vision.session import Session

Image = NDArray[np.uint8]


@pytest.fixture
def session(model: Segmenter, coins: Image) -> Session:
    """Four coins of the photograph; the middle of one is at (45, 25)."""
    return model.open(coins[100:216, 0:128])


def same(a: Mask | None, b: Mask | None) -> bool:
    """Whether two masks are the same to the last bit."""
    if a is None or b is None:
        return a is b
    return np.array_equal(a.logits, b.logits) and a.window == b.window and a.score == b.score


def test_a_new_session_holds_the_image_and_nothing_else(session: Session, coins: Image) -> None:
    np.testing.assert_array_equal(session.image, coins[100:216, 0:128])
    assert session.mask is None
    assert session.prompt == Prompt()
    assert session.annotations == []


def test_a_whole_number_means_the_centre_of_the_pixel(session: Session) -> None:
    session.click(45, 25)
    session.click(100.25, 26.0, positive=False)
    assert session.prompt.points == ((45.5, 25.5), (100.25, 26.5))
    assert session.prompt.labels == (True, False)


def test_the_mask_is_the_answer_to_all_prompts_so_far(session: Session) -> None:
    session.click(45, 25)
    session.box(20, 0, 70, 50)
    mask = session.click(100, 25, positive=False)
    assert mask is session.mask
    expected = session.model.decode(session.embedding, [session.prompt])[0]
    assert same(mask, expected)
    assert session.prompt.box == (20.0, 0.0, 70.0, 50.0)


def test_a_second_box_replaces_the_first(session: Session) -> None:
    session.box(20, 0, 70, 50)
    session.box(70, 0, 120, 50)
    assert session.prompt.box == (70.0, 0.0, 120.0, 50.0)
    assert len(session.prompt.points) == 0


def test_undo_after_each_step_is_the_identity(session: Session) -> None:
    given = np.zeros(session.image.shape[:2], bool)
    given[5:45, 25:65] = True
    steps = [
        lambda: session.click(45, 25),
        lambda: session.click(100, 25, positive=False),
        lambda: session.box(20, 0, 70, 50),
        lambda: session.choose(0),
        lambda: session.paint(given),
        session.reset,
    ]
    for step in steps:
        before = session.mask, session.prompt
        step()
        assert session.prompt is not before[1]
        session.undo()
        assert same(session.mask, before[0])
        assert session.prompt is before[1]
        session.redo()


def test_undo_all_and_redo_all(session: Session) -> None:
    masks = [session.mask, session.click(45, 25), session.click(100, 25, positive=False), session.click(45, 30)]
    for expected in reversed(masks[:-1]):
        assert same(session.undo(), expected)
    assert session.undo() is None
    for expected in masks[1:]:
        assert same(session.redo(), expected)
    assert same(session.redo(), masks[-1])


def test_a_step_that_is_past_keeps_logits_and_no_pixels(session: Session) -> None:
    mask = session.click(45, 25)
    crops = [piece.crop for piece in (mask, *mask.candidates)]
    session.click(100, 25, positive=False)
    again = session.undo()
    assert again is mask
    for piece, crop in zip((mask, *mask.candidates), crops, strict=True):
        assert piece.logits.nbytes == 256 * 256 * 2
        assert piece.crop is not crop
        np.testing.assert_array_equal(piece.crop, crop)


def test_undone_and_clicked_again_is_the_same_mask(session: Session) -> None:
    session.click(45, 25)
    first = session.click(100, 25, positive=False)
    session.undo()
    assert same(session.click(100, 25, positive=False), first)


def test_a_new_prompt_forgets_what_was_undone(session: Session) -> None:
    session.click(45, 25)
    session.click(100, 25, positive=False)
    session.undo()
    mask = session.click(45, 30)
    assert same(session.redo(), mask)
    assert session.prompt.points == ((45.5, 25.5), (45.5, 30.5))


def test_reset_forgets_the_prompts_and_undo_brings_them_back(session: Session) -> None:
    mask = session.click(45, 25)
    session.reset()
    assert session.mask is None
    assert session.prompt == Prompt()
    assert same(session.undo(), mask)
    session.reset()
    session.reset()
    assert same(session.undo(), mask)


def test_accept_keeps_mask_label_and_prompt_and_starts_the_next(session: Session) -> None:
    mask = session.click(45, 25)
    prompt = session.prompt
    annotation = session.accept("coin")
    assert annotation.label == "coin"
    assert same(annotation.mask, mask)
    assert annotation.mask.candidates == ()
    np.testing.assert_array_equal(annotation.mask.array, mask.array)
    assert annotation.prompt is prompt
    assert session.mask is None
    assert session.undo() is None
    assert session.redo() is None
    session.box(70, 0, 120, 50)
    session.accept()
    assert [a.label for a in session.annotations] == ["coin", "object"]


def test_choosing_a_candidate_makes_it_the_mask(session: Session) -> None:
    mask = session.click(45, 25)
    for index in range(3):
        picked = session.choose(index)
        assert picked is mask.candidates[index]
        assert session.mask is picked
        assert session.prompt.mask is not None
        np.testing.assert_array_equal(session.prompt.mask.array, picked.array)
        # no more than the object's own rectangle is kept for the clicks to come, and in the history
        np.testing.assert_array_equal(session.prompt.mask.pixels, picked.crop)
        session.undo()


def test_later_clicks_correct_the_candidate_chosen(session: Session) -> None:
    session.click(45, 25)
    picked = session.choose(2)
    corrected = session.click(100, 25, positive=False).array
    common = (corrected & picked.array).sum()
    assert common > 0.5 * corrected.sum()


def test_painting_starts_from_a_mask_of_one_s_own(session: Session) -> None:
    given = np.zeros(session.image.shape[:2], np.uint8)
    given[8:44, 28:64] = 1
    mask = session.paint(given)
    assert (mask.array & (given > 0)).sum() / (mask.array | (given > 0)).sum() > 0.5


def test_a_painted_mask_is_kept_as_its_rectangle(session: Session) -> None:
    given = np.zeros(session.image.shape[:2], bool)
    given[8:44, 28:64] = True
    session.paint(given)
    assert session.prompt.mask is not None
    assert session.prompt.mask.pixels.shape == (36, 36)
    kept = session.prompt.mask
    session.click(100, 25, positive=False)
    assert session.prompt.mask is kept


@pytest.mark.parametrize("value", [0.3, float("nan")])
def test_probabilities_cannot_be_painted(session: Session, value: float) -> None:
    with pytest.raises(TypeError, match=r"bools or integers, got float64; threshold first, as in mask > 0.5"):
        session.paint(np.full(session.image.shape[:2], value))
    assert session.mask is None


def test_what_is_no_number_is_named(session: Session) -> None:
    with pytest.raises(TypeError, match="click takes numbers, in pixels, got x='a'"):
        session.click("a", 3)
    with pytest.raises(TypeError, match="click takes numbers, in pixels, got x=None, y='3'"):
        session.click(None, "3")
    with pytest.raises(TypeError, match="box takes numbers, in pixels, got y1='9'"):
        session.box(0, 0, 9, "9")
    session.click(np.float32(45), torch.tensor(25))
    assert session.prompt.points == ((45.5, 25.5),)


def test_a_click_that_fails_changes_nothing(session: Session) -> None:
    mask = session.click(45, 25)
    prompt = session.prompt
    for x, y in ((128, 5), (-1, 5), (5, 116), (5, -0.1), (float("nan"), 5)):
        with pytest.raises(ValueError, match="lies outside the image, which is 128 x 116 pixels"):
            session.click(x, y)
    with pytest.raises(ValueError, match=r"box \(50, 50, 10, 10\) must have x0 < x1 and y0 < y1"):
        session.box(50, 50, 10, 10)
    with pytest.raises(ValueError, match="mask must have the image's shape"):
        session.paint(np.ones((3, 3), bool))
    assert session.mask is mask
    assert session.prompt is prompt


def test_what_needs_a_mask_says_so(session: Session) -> None:
    with pytest.raises(ValueError, match="accept needs a mask: click or box first"):
        session.accept()
    with pytest.raises(ValueError, match="choose needs a mask: click or box first"):
        session.choose(0)
    with pytest.raises(ValueError, match="got only negative points"):
        session.click(5, 5, positive=False)
    session.click(45, 25)
    for index in (-1, 3):
        with pytest.raises(ValueError, match=f"candidates are 0 to 2, got {index}"):
            session.choose(index)
