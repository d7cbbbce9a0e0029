"""How many and where: a map whose sum is the number."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.tasks.counting import Counting, counted
from offramp.types import Tap


class Density(Counting):
    """A map a sample, on the grid of the tap; its sum is the number, and all that decisions and tables read of it.

    Targets are maps ``(B, 1, H, W)`` on any grid, finer or coarser than the output's, or numbers ``(B,)`` where nobody
    knows where things are. The loss of a map is the squared error, summed over its cells once both have the coarser
    grid of the two; DISCO's (2005.07097) is its mean over pixels times 100², the same up to a factor. That of a number
    is the absolute error of the sum (our choice). Scores and metric are those of ``counting``.
    """

    name = "density"

    def shape(self, tap: Tap, num_outputs: int) -> tuple[int, ...]:
        """One map."""
        return (num_outputs, *tap.grid)

    def keep(self, output: Tensor) -> Tensor:
        """The sum of each map, ``(B, num_outputs)``."""
        return output.sum((2, 3))

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Of each sample."""
        if target.ndim == 1:
            return super().losses(self.keep(output.float()), target)
        return _squared(output.float(), target.float())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch."""
        return self.losses(output, target).mean()

    def taught(self, target: Tensor, answer: Tensor, weight: float, temperature: float) -> Tensor:
        """Maps between the target and the teacher's answer, on the answer's grid; numbers where either is one."""
        if target.ndim == 1 or answer.ndim == 2:
            numbers = answer if answer.ndim == 2 else self.keep(answer.float())
            return super().taught(target, numbers, weight, temperature)
        return regridded(target.float(), (answer.shape[-2], answer.shape[-1])).lerp(answer.float(), weight)

    def distillation(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """As the loss of a map, mean over the batch."""
        return _squared(output.float(), teacher.float()).mean()

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """The absolute error of the number."""
        return (self.answer(output).float() - counted(target)).abs()


def regridded(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps ``(B, C, H, W)`` on another grid ``(B, C, h, w)``, where a cell gets what lies in it: sums stay."""
    for dim, cells in zip((-2, -1), grid, strict=True):
        if maps.shape[dim] != cells:
            maps = torch.tensordot(maps, _shares(maps.shape[dim], cells).to(maps), ([dim], [1])).movedim(-1, dim)
    return maps


def _shares(before: int, after: int) -> Tensor:
    """The part of each cell that lies in each new one, ``(after, before)``, where both cover the same length."""
    old = torch.arange(before + 1, dtype=torch.float64) / before
    new = torch.arange(after + 1, dtype=torch.float64) / after
    common = torch.minimum(new[1:, None], old[None, 1:]) - torch.maximum(new[:-1, None], old[None, :-1])
    return common.clamp(min=0) * before


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """The squared error of two maps on the coarser grid of both, ``(B,)``."""
    grid = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    return (regridded(a, grid) - regridded(b, grid)).square().flatten(1).sum(1)


def game(output: Tensor, target: Tensor, level: int) -> Tensor:
    """Grid average mean error of maps ``(B, 1, H, W)``, ``(B,)`` (Guerrero-Gómez-Olmedo et al., IbPRIA 2015).

    Both are cut into 4 to the power of ``level`` equal parts, and the absolute errors of these are summed: at level 0
    it is the absolute error of the number.
    """
    parts = (2**level, 2**level)
    return (regridded(output.float(), parts) - regridded(target.float(), parts)).abs().flatten(1).sum(1)
