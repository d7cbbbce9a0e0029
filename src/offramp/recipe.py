"""Recipes: a YAML file that says what to train, checked as a whole before anything runs. Values only, never code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from offramp.errors import UsageError
from offramp.registry import HEADS, INPUTS, LINKS, OBJECTIVES, PATHS, ROUTERS, TASKS, Table, unknown

_MOST = 10_000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(table: Table) -> AfterValidator:
    def check(name: str) -> str:
        if name not in table:
            raise ValueError(unknown(table.kind, name, table))
        return name

    return AfterValidator(check)


class DataSection(_Section):
    """Where samples come from."""

    source: str
    """As ``offramp.data.open_splits`` takes it: ``digits``, a folder, an ``.npz`` file, ``.tar`` shards,
    ``torchvision/NAME``, ``hf/OWNER/NAME``."""
    validation: int | float | None = None
    """How many samples, or what share, to cut for validation where the source has no such split."""


class BackboneSection(_Section):
    """Which timm model."""

    name: str
    """A name of timm's; ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME`` for a model that was saved for the hub."""
    pretrained: bool = False
    """Whether timm shall load its weights, downloading them where they are not in its cache."""
    args: dict[str, Any] = {}
    """Arguments for ``timm.create_model``."""
    preprocessing: dict[str, Any] = {}
    """What to change in timm's data configuration: mean, std, crop_pct, interpolation."""
    checkpoint: Path | None = None
    """A local file of weights, read by timm's own loader; with other classes it gives all but the classifier."""


class InputSection(_Section):
    """What one sample is."""

    name: Annotated[str, _named(INPUTS)] = "image"
    options: dict[str, Any] = {}
    """What to change in what the input takes from the backbone."""


class ExitSection(_Section):
    """A head at a place."""

    after: Annotated[int, Field(ge=1)]
    head: Annotated[str, _named(HEADS)] = "linear"
    options: dict[str, Any] = {}
    path: int | None = None
    """The path that it stands on, -1 for the backbone itself; every path if not given."""
    side: Literal["append", "film"] | None = None
    """How the head also reads what the side encoder makes of another modality."""


class PathSection(_Section):
    """A cheaper way through the backbone."""

    name: Annotated[str, _named(PATHS)] = "tail"
    options: dict[str, Any] = {}


class LinkSection(_Section):
    """What a path takes over from the one before."""

    name: Annotated[str, _named(LINKS)] = "none"
    options: dict[str, Any] = {}


class RouterSection(_Section):
    """What says where a sample enters."""

    name: Annotated[str, _named(ROUTERS)] = "cnn"
    options: dict[str, Any] = {}


class FinalSection(_Section):
    """A head in place of the backbone's own classifier."""

    head: Annotated[str, _named(HEADS)] = "linear"
    options: dict[str, Any] = {}
    side: Literal["append", "film"] | None = None
    """As of an exit."""


class ObjectiveSection(_Section):
    """How to train."""

    name: Annotated[str, _named(OBJECTIVES)] = "joint"
    options: dict[str, Any] = {}


class TeacherSection(BackboneSection):
    """Another network to learn from: a timm model, or the final exit of a saved Offramp model."""

    name: str = ""
    artifact: Path | None = None
    """The folder of a saved model, in place of a name."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much of the targets are its answers."""
    temperature: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one(self) -> TeacherSection:
        if bool(self.name) == (self.artifact is not None):
            raise ValueError("give exactly one of name and artifact")
        return self


class CurriculumSection(_Section):
    """Easy samples first; see ``offramp.Curriculum``."""

    start: Annotated[float, Field(gt=0, le=1)] = 0.3
    over: Annotated[float, Field(gt=0, le=1)] = 0.5
    hardest_first: bool = False


class TrainingSection(_Section):
    """The loop's own settings; see ``offramp.train``."""

    epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 64
    accumulate: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Annotated[str, Field(pattern="^(cosine|plateau)$")] = "cosine"
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    head_rate: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    precision: Annotated[str, Field(pattern="^(bf16|fp32)$")] = "bf16"
    augment: dict[str, Any] | None = None
    mixing: dict[str, Any] | None = None
    mixing_epochs: Annotated[int, Field(ge=0)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    optimizer: str = "adamw"
    workers: Annotated[int, Field(ge=0)] = 0
    activation_checkpointing: bool = False


class GoalSection(_Section):
    """What to calibrate for; exactly one of the two."""

    max_drop: Annotated[float, Field(ge=0)] | None = None
    target_speedup: Annotated[float, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> GoalSection:
        if (self.max_drop is None) == (self.target_speedup is None):
            raise ValueError("give exactly one of max_drop and target_speedup")
        return self


class Recipe(_Section):
    """All of it."""

    name: str
    about: str = ""
    """What the model is for; its card begins with it."""
    seed: int = 0
    data: DataSection
    backbone: BackboneSection
    input: InputSection = InputSection()
    exits: list[ExitSection] = []
    tails: list[int] = []
    """Rows of tokens of every path, the backbone's own among them; short for ``paths`` of tails."""
    paths: list[PathSection] = []
    link: LinkSection = LinkSection()
    router: RouterSection | None = None
    side: BackboneSection | None = None
    """What encodes another modality, for exits with a ``side``; it has no classifier."""
    final: FinalSection | None = None
    """What stands behind the last block in place of the backbone's own classifier."""
    task: Annotated[str, _named(TASKS)] = "classification"
    objective: ObjectiveSection = ObjectiveSection()
    training: TrainingSection = TrainingSection()
    teacher: TeacherSection | None = None
    curriculum: CurriculumSection | None = None
    goal: GoalSection = GoalSection(max_drop=0.005)
    storage: Annotated[str, Field(pattern="^(fp32|fp16)$")] = "fp32"
    """How weights are stored; ``fp16`` rounds them before the exits are read for calibration."""


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; ``-`` reads standard input.

    Raises:
        UsageError: no such file, no YAML, or faults in it, all of them at once, with the nearest name for unknown ones.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else Path(path).read_text()
        values = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a ValueError: no text, or endless digits
        raise UsageError(f"the recipe {path} could not be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"the recipe {path} holds no settings")
    if sum(1 for _ in islice(_settings(values), _MOST + 1)) > _MOST:
        raise UsageError(f"the recipe {path} holds more than {_MOST} settings")
    return check_recipe(values, str(path))


def _settings(values: Any) -> Iterator[Any]:
    """All values in a tree, an alias as often as it stands there: a few lines of YAML may be billions."""
    inside = [values]
    while inside:
        value = inside.pop()
        yield value
        inside += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def check_recipe(values: dict[str, Any], where: str = "the recipe") -> Recipe:
    """A recipe from plain values. Raises ``UsageError`` with every fault at once."""
    faults = list(_backbone_faults(values))
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults = [_sentence(fault) for fault in error.errors()] + faults
    if faults or recipe is None:
        raise UsageError(f"{where} has {len(faults)} fault{'s' * (len(faults) != 1)}:\n  " + "\n  ".join(faults))
    return recipe


def _backbone_faults(values: dict[str, Any]) -> Iterator[str]:
    import timm

    for key in ("backbone", "side", "teacher"):
        section = values.get(key)
        name = section.get("name") if isinstance(section, dict) else None
        if isinstance(name, str) and not name.startswith(("local-dir:", "hf-hub:")) and not timm.is_model(name):
            yield f"{key}.name: " + unknown("timm model", name, timm.list_models())


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        known = list(_section_at(parents).model_fields)
        return f"{where}: " + unknown("setting", str(key), known)
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}"


def _section_at(parents: list[Any]) -> type[BaseModel]:
    section: Any = Recipe
    for part in parents:
        if isinstance(part, str):
            section = section.model_fields[part].annotation
            section = getattr(section, "__args__", (section,))[0]
    return section
