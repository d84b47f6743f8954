from __future__ import annotations

import pytest
import torch
from benchmarks.selective_copying import CUE, FIRST, NOISE, SPECIAL, Task, copying, induction, recall, scatter


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_data_tokens_stand_in_noise_with_a_cue_for_each_after_it() -> None:
    inputs, targets = scatter(torch.tensor([[5, 2, 5], [4, 3, 2]]), torch.tensor([[1, 2, 4], [0, 3, 4]]), 5)
    assert inputs.tolist() == [[NOISE, 5, 2, NOISE, 5, CUE, CUE, CUE], [4, NOISE, NOISE, 3, 2, CUE, CUE, CUE]]
    assert targets.tolist() == [[5, 2, 5], [4, 3, 2]]


def test_the_token_after_the_special_one_is_asked_for() -> None:
    inputs, targets = recall(torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]), torch.tensor([[0], [2]]))
    assert inputs.tolist() == [[SPECIAL, 2, 3, 4, SPECIAL], [1, 2, SPECIAL, 4, SPECIAL]]
    assert targets.tolist() == [[2], [4]]


def test_copying_draws_distinct_places_all_over_and_every_kind() -> None:
    inputs, targets = copying(10, 4, 3).draw(500, seeded(0))
    context = inputs[:, :10]
    assert inputs.shape == (500, 13)
    assert (inputs[:, 10:] == CUE).all()
    assert ((context != NOISE).sum(1) == 3).all()
    assert torch.equal(context[context != NOISE].view(500, 3), targets)
    assert (context != NOISE).any(0).all()
    assert targets.unique().tolist() == list(range(FIRST, FIRST + 4))


def test_induction_draws_two_special_tokens_and_every_kind() -> None:
    inputs, targets = induction(8, 5).draw(500, seeded(0))
    special = inputs == SPECIAL
    assert inputs.shape == (500, 8)
    assert (special.sum(1) == 2).all()
    assert special[:, -1].all()
    first = special.int().argmax(1)
    assert first.unique().tolist() == list(range(6))  # so that an ordinary token always follows
    assert torch.equal(inputs[torch.arange(500), first + 1], targets[:, 0])
    assert targets.unique().tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("task", [copying(10, 4, 3), induction(8, 5)], ids=lambda task: task.name)
def test_a_seed_gives_the_same_batch_and_another_a_different_one(task: Task) -> None:
    (a, x), (b, y), (c, _) = (task.draw(4, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert torch.equal(x, y)
    assert not torch.equal(a, c)
    assert int(a.max()) < task.vocabulary
