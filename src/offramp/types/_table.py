"""Every exit's output for every sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from offramp.types._chain import Chain, chain_of


@dataclass(frozen=True, eq=False)
class ExitTable:
    """Every exit's output for every sample of a data set: all that calibration, replay and reports need.

    Args:
        outputs: float32 ``(exits, samples, num_outputs)``, exits in order, the final exit last; of a compact table
            float16, distances from the largest of each row.
        targets: what is true, shape ``(samples,)``.
        after: for each exit the block of its path that it reads; the final exit has the depth of the backbone.
        heads: for each exit the name of its head; a path's own classifier is called ``final``.
        task: the name of the task that says what an output means.
        provenance: data set, split, runtime, precision, versions: where the numbers come from.
        largest: of each row of a compact table, float32 ``(exits, samples)``.
        paths: for each exit the number of its path; all stand on one if empty.
        route: what the model's router says of each sample, float32 ``(samples, paths)``, where it has a router.
        entered: where links make an answer depend on where a sample entered: for each path but the first a table of
            those who enter there, with the exits from that path on.
    """

    outputs: Tensor
    targets: Tensor
    after: tuple[int, ...]
    heads: tuple[str, ...]
    task: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    largest: Tensor | None = None
    paths: tuple[int, ...] = ()
    route: Tensor | None = None
    entered: tuple[ExitTable, ...] = ()

    def __len__(self) -> int:
        return self.outputs.shape[1]

    @property
    def chain(self) -> Chain:
        """Where the exits stand."""
        return chain_of(self.after, self.paths, bool(self.entered))

    def of(self, k: int, entry: Tensor | None = None) -> Tensor:
        """The outputs of one exit, float32 ``(samples, num_outputs)``.

        Args:
            k: the index of the exit.
            entry: the path that each sample enters at, ``(samples,)``; the first if not given.
        """
        own = self.outputs[k].float()
        if self.largest is not None:
            own = own + self.largest[k][:, None]
        if entry is None:
            return own
        for path, table in enumerate(self.entered, start=1):
            start, k = self.chain.starts[path], k % len(self.after)
            if k >= start:
                own = torch.where((entry == path)[:, None], table.of(k - start), own)
        return own

    def each(self) -> Iterator[Tensor]:
        """The outputs of every exit in turn, as ``of`` gives them."""
        return map(self.of, range(len(self.outputs)))

    def take(self, rows: Tensor | slice) -> ExitTable:
        """The same table for some of the samples, in the order of ``rows``."""
        return replace(
            self,
            outputs=self.outputs[:, rows],
            targets=self.targets[rows],
            largest=None if self.largest is None else self.largest[:, rows],
            route=None if self.route is None else self.route[rows],
            entered=tuple(table.take(rows) for table in self.entered),
        )

    def compact(self) -> ExitTable:
        """The same in half the space.

        The largest output of a row is kept as it is, the others as their distance from it in float16: exact to one part
        in two thousand of the distance, so that what is near the largest is told apart from it, and no answer changes.
        """
        if self.largest is not None:
            return self
        outputs = torch.empty(self.outputs.shape, dtype=torch.float16)
        largest = torch.empty(self.outputs.shape[:2])
        for k, own in enumerate(self.each()):
            outputs[k], largest[k] = distances(own)
        return replace(self, outputs=outputs, largest=largest, entered=tuple(t.compact() for t in self.entered))


def distances(output: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``(n, num_outputs)`` as a compact table keeps them: float16 distances, and the largest ``(n,)``."""
    largest = output.amax(1)
    return (output - largest[:, None]).clamp(min=-65504).half(), largest
