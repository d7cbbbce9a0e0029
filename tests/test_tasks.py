"""What outputs mean."""

import pytest
import torch

from offramp.errors import UsageError
from offramp.tasks import Classification, Counting, get_task


def test_classification():
    task = Classification()
    output = torch.tensor([[0.0, 100.0], [3.0, 3.0]])
    assert task.answer(output).tolist() == [1, 0]
    assert task.score("confidence", output, None).tolist() == [1.0, 0.5]
    assert task.quality(output, torch.tensor([1, 1])).tolist() == [1.0, 0.0]
    assert task.loss(output, torch.tensor([1, 1])).item() == pytest.approx(0.6931 / 2, abs=1e-3)


def test_counting():
    task = Counting()
    output, previous = torch.tensor([[2.0], [5.0]]), torch.tensor([[2.0], [4.0]])
    assert task.answer(output).tolist() == [2.0, 5.0]
    assert task.score("change", output, None).tolist() == [0.0, 0.0]
    assert task.score("change", output, previous).tolist() == [1.0, 0.5]
    assert task.quality(output, torch.tensor([1, 5])).tolist() == [1.0, 0.0]
    assert task.loss(output, torch.tensor([1, 5])).item() == 0.5


def test_an_empty_batch_has_empty_scores():
    assert Classification().score("confidence", torch.zeros(0, 3), None).shape == (0,)
    assert Counting().score("change", torch.zeros(0, 1), torch.zeros(0, 1)).shape == (0,)


def test_unknown_score_and_task():
    with pytest.raises(UsageError, match="did you mean 'confidence'"):
        Classification().score("confidance", torch.zeros(1, 2), None)
    with pytest.raises(UsageError, match="did you mean 'counting'"):
        get_task("count")
