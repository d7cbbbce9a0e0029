"""Weightings, by the numbers."""

from offramp.training.objectives.weightings import depth, final_doubled, uniform


def test_values():
    assert uniform((2, 4)) == [0.5, 0.5]
    assert depth((4, 8, 12)) == [4 / 24, 8 / 24, 12 / 24]
    assert final_doubled((4, 8, 12)) == [0.25, 0.25, 0.5]
