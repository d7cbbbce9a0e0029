"""Networks as files, in fp32 and int8: each is exported once."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from benchmarks.tails.plan import Field, Run
from benchmarks.tails.training import trained
from offramp.bench.rows import spaced
from offramp.data import Splits, loader
from offramp.export import export_onnx, export_static_onnx
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.policies.threshold import Threshold

_SAMPLES = 256
"""Training images that int8 takes its ranges from."""


class Files:
    """Files of one field.

    Args:
        place: where the comparison takes place.
        work: where finished runs are kept.
        splits: the data.
        folder: for the files.
    """

    def __init__(self, place: Field, work: Path, splits: Splits, folder: Path) -> None:
        self.place, self.work, self.splits, self.folder = place, work, splits, folder
        self._models: dict[tuple[str, int], EarlyExitModel] = {}

    def dynamic(self, run: Run, int8: bool) -> Path:
        """A file with every exit and no router: who is not sure goes on."""
        path = self.folder / f"{run.name}-{len(run.exits)}-{int8}.onnx"
        if not path.exists():
            model = self.model(run)
            never = Threshold((None,) * len(model.exits))
            export_onnx(model, path, never, int8=self._examples(model) if int8 else None)
        return path

    def fixed(self, run: Run, int8: bool, policy: Policy) -> Path:
        """A file with the exits that a policy asks, as one would deploy it."""
        asked = "-".join(map(str, policy.heads))
        path = self.folder / f"{run.name}-{len(run.exits)}-{int8}-{asked}.onnx"
        if not path.exists():
            model = self.model(run)
            export_onnx(model, path, policy, int8=self._examples(model) if int8 else None, fixed=True)
        return path

    def static(self, run: Run, int8: bool) -> Path:
        """A network alone."""
        path = self.folder / f"{run.name}-{int8}.onnx"
        if not path.exists():
            model = self.model(run)
            export_static_onnx(model.static, model.input.example(2), path, self._examples(model) if int8 else None)
        return path

    def model(self, run: Run) -> EarlyExitModel:
        """A finished run's model."""
        key = run.name, len(run.exits)
        if key not in self._models:
            self._models[key] = trained(run.seeded(0), self.place, self.work, len(self.splits.classes or ()))
        return self._models[key]

    def _examples(self, model: EarlyExitModel) -> list[Tensor]:
        return [x for x, _ in loader(spaced(self.splits.train, _SAMPLES), model.input, 32)]
