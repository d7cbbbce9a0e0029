"""What outputs mean."""

from itertools import pairwise

import pytest
import torch

from offramp.errors import UsageError
from offramp.tasks import Classification, Counting, Density, get_task
from offramp.tasks.density import game, regridded


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


def test_counting_reads_maps_as_their_sums():
    maps = torch.rand(3, 1, 6, 4)
    numbers, output = maps.sum((1, 2, 3)), torch.rand(3, 1)
    for call in (Counting().loss, Counting().losses, Counting().quality):
        assert torch.allclose(call(output, maps), call(output, numbers))
    assert torch.allclose(Counting().taught(maps, output, 0.5, 1.0), Counting().taught(numbers, output, 0.5, 1.0))


def test_density():
    task = Density()
    output = torch.zeros(2, 1, 4, 4)
    output[0, 0, 1, 2], output[1] = 2.0, 0.25
    kept = task.keep(output)
    assert kept.tolist() == [[2.0], [4.0]]
    assert task.answer(kept).tolist() == [2.0, 4.0]
    assert task.quality(kept, torch.tensor([2, 5])).tolist() == [0.0, 1.0]
    assert task.quality(kept, output).tolist() == [0.0, 0.0]
    assert task.losses(output, torch.tensor([2, 5])).tolist() == [0.0, 1.0], "a number is compared with the sum"
    for target in (torch.tensor([2.0, 5.0]), output):
        taught = task.taught(target, kept, 0.5, 1.0)
        assert torch.equal(taught, Counting().taught(target, kept, 0.5, 1.0)), "a teacher's kept answers are numbers"
    assert torch.equal(task.taught(torch.tensor([2.0, 5.0]), output, 1.0, 1.0), kept[:, 0])
    assert torch.equal(task.taught(output, 2 * output, 0.5, 1.0), 1.5 * output)
    elsewhere = output.roll(1, -1)
    assert task.losses(output, elsewhere).tolist() == [8.0, 0.0], "2² where it is not and 2² where it is"


@pytest.mark.parametrize("grid", [(8, 12), (2, 3), (1, 1), (5, 7)])
def test_maps_on_other_grids_are_compared_on_the_coarser_one(grid):
    task, target = Density(), torch.rand(2, 1, *grid)
    same = regridded(target, (4, 6))
    assert same.shape == (2, 1, 4, 6)
    assert torch.allclose(same.sum((1, 2, 3)), target.sum((1, 2, 3)))
    if grid[0] >= 4:
        assert torch.allclose(task.losses(same, target), torch.zeros(2), atol=1e-6)
    assert torch.allclose(task.distillation(same, target, 1.0), task.distillation(target, same, 1.0))
    assert (task.losses(same + 1, target) > 1).all()


def test_game_is_the_error_of_the_number_and_more_the_finer_the_grid():
    a, b = torch.rand(3, 1, 12, 20), torch.rand(3, 1, 6, 10)
    assert torch.allclose(game(a, b, 0), (a.sum((1, 2, 3)) - b.sum((1, 2, 3))).abs(), atol=1e-4)
    levels = [game(a, b, level) for level in range(4)]
    assert all((finer >= coarser - 1e-4).all() for coarser, finer in pairwise(levels))
    here, there = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    here[0, 0, 0, 0] = there[0, 0, 3, 3] = 2.0
    assert [float(game(here, there, level)) for level in range(3)] == [0, 4, 4]


def test_a_cell_gives_each_new_one_what_lies_in_it():
    assert torch.allclose(regridded(torch.tensor([[[[3.0, 6.0, 9.0]]]]), (1, 2)), torch.tensor([[[[6.0, 12.0]]]]))
    one = torch.zeros(1, 1, 2, 2)
    one[..., 0, 1] = 4.0
    assert regridded(one, (4, 4))[0, 0, :2, 2:].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_an_empty_batch_has_empty_scores():
    assert Classification().score("confidence", torch.zeros(0, 3), None).shape == (0,)
    assert Counting().score("change", torch.zeros(0, 1), torch.zeros(0, 1)).shape == (0,)


def test_unknown_score_and_task():
    with pytest.raises(UsageError, match="did you mean 'confidence'"):
        Classification().score("confidance", torch.zeros(1, 2), None)
    with pytest.raises(UsageError, match="did you mean 'counting'"):
        get_task("count")
