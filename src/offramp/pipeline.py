"""The road, driven whole: from a recipe to an artifact, and from an artifact and data to a result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from accelerate import PartialState
from torch import Tensor

from offramp._batches import Inputs
from offramp._device import current_device
from offramp._progress import track
from offramp.artifact import Artifact, load_artifact, refuse_foreign, round_to_fp16, save
from offramp.backbones import cut, input_size, read_checkpoint
from offramp.bench.rows import bench_policy
from offramp.calibration import calibrate
from offramp.cost import profile
from offramp.data import Data, Splits, as_splits, in_crops, loader, open_splits, splits_in_crops
from offramp.engine import Runtime, tabulate, tabulate_in
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, attach
from offramp.policies import Policy
from offramp.recipe import BackboneSection, Recipe, TeacherSection
from offramp.registry import INPUTS, OBJECTIVES
from offramp.report import evaluate_table
from offramp.tasks import Task, get_task
from offramp.training import Curriculum, Teacher, train
from offramp.types import Exit, ExitTable, Part
from offramp.versions import host, versions

if TYPE_CHECKING:
    from offramp.export.metadata import ExportedFile

_LARGEST = 2**26
"""Numbers of a table that is kept as it is; a larger one is kept compact."""


def build_model(recipe: Recipe, splits: Splits) -> EarlyExitModel:
    """The untrained model of a recipe.

    Raises:
        UsageError: its parts do not fit together.
        DataError: weights that are not there; data without a training split, or with labels that are no classes.
    """
    targets, outputs = splits.train.targets, 1
    task = get_task(recipe.task)
    if task.classes:  # those without names are those up to the largest label
        outputs = len(splits.classes or range(int(targets.max()) + 1))
    inner = timm_model(recipe.backbone, outputs)
    reads = INPUTS.resolve(recipe.input.name).for_backbone(inner, input_size(inner), **recipe.input.options)
    exits = [Exit(e.after, e.head, e.options, e.path, e.side) for e in recipe.exits]
    last = recipe.final
    final = None if last is None else Exit(len(cut(inner).steps), last.head, last.options, side=last.side)
    names = splits.classes if task.classes else None
    model = attach(
        inner,
        exits,
        task,
        names,
        reads,
        final,
        None if final is None else outputs,
        tails=recipe.tails,
        paths=[Part(p.name, p.options) for p in recipe.paths],
        link=Part(recipe.link.name, recipe.link.options),
        router=None if recipe.router is None else Part(recipe.router.name, recipe.router.options),
        side=None if recipe.side is None else timm_model(recipe.side, 0),
    )
    check_classes(splits, recipe.data.source, task, model.num_outputs, model.classes)
    return model


def timm_model(backbone: BackboneSection, outputs: int) -> Any:
    """The timm model of a recipe's section, with the weights of its ``checkpoint`` where it names one.

    A checkpoint with another number of classes gives all but the classifier, and a ``Notice`` says so.

    Raises:
        UsageError: timm knows no such model, or not with these arguments.
        DataError: weights that are not there, are damaged, or are those of another model.
    """
    arguments = {"num_classes": outputs, **backbone.args}
    overlay = dict(backbone.preprocessing)
    if (size := arguments.get("img_size")) is not None:
        height, width = (size, size) if isinstance(size, int) else size
        overlay.setdefault("input_size", (arguments.get("in_chans", 3), height, width))

    def create(pretrained: bool, overlay: dict[str, Any], **changed: Any) -> Any:
        settings = {**arguments, **changed}
        return timm.create_model(backbone.name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **settings)

    try:
        model = create(backbone.pretrained and backbone.checkpoint is None, overlay)
    except OSError as error:
        raise DataError(
            f"the weights of {backbone.name} could not be read (no network, or no file): {error}"
        ) from error
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise UsageError(f"timm could not build {backbone.name} with {arguments}: {error}") from error
    if backbone.checkpoint is not None:
        read_checkpoint(model, backbone.checkpoint, create)
    return model


def _teacher(section: TeacherSection, model: EarlyExitModel) -> Teacher:
    if section.artifact is not None:
        other = load_artifact(section.artifact).model
        network, reads, classes = other.static, other.input, other.classes
        if classes is not None and model.classes is not None and classes != model.classes:
            raise UsageError(f"the teacher knows {', '.join(classes)}; the model learns {', '.join(model.classes)}")
        return Teacher(network, section.weight, section.temperature, reads)
    return Teacher(timm_model(section, model.num_outputs), section.weight, section.temperature)


def train_recipe(
    recipe: Recipe, out: Path, device: str = "auto", progress: bool = False, tracker: str | None = None
) -> Artifact | None:
    """Train, tabulate on validation, calibrate for the recipe's goal, and write the artifact.

    Checkpoints, log and splits are kept in ``OUT.run`` beside the artifact; the same call resumes a run that was
    killed. Under ``accelerate launch`` the first process does all but the training alone; the others get None.

    Raises:
        UsageError: ``OUT.run`` holds another run; ``OUT`` holds something else than an artifact.
        DataError: the data is not there, or the disk is full.
    """
    refuse_foreign(out)  # before hours are spent
    processes = PartialState(cpu=current_device(device).type == "cpu")
    with processes.main_process_first():
        splits = open_splits(recipe.data.source, recipe.data.validation, recipe.seed, kind=recipe.input.name)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, splits)
    splits = splits_in_crops(splits, model.input.crops)
    goal = OBJECTIVES.resolve(recipe.objective.name)
    try:
        objective = goal(**recipe.objective.options)
    except TypeError as error:
        raise UsageError(f"objective {recipe.objective.name!r}: {error}") from error
    folder = out.with_name(out.name + ".run")
    record = {"recipe": recipe.model_dump(mode="json"), "data": dict(splits.record)}
    record["recipe"]["data"]["source"] = splits.record["source"]  # a path of this machine says nothing elsewhere
    train(
        model,
        splits.train,
        objective,
        folder=folder,
        validation=splits.validation,
        seed=recipe.seed,
        teacher=None if recipe.teacher is None else _teacher(recipe.teacher, model),
        curriculum=None if recipe.curriculum is None else Curriculum(**recipe.curriculum.model_dump()),
        device=device,
        progress=progress,
        tracker=tracker,
        origin=_origin(recipe.backbone),
        **recipe.training.model_dump(),
    )
    if not processes.is_main_process:
        return None
    if recipe.storage == "fp16":
        round_to_fp16(model)
    table = tabulate_samples(model, splits, "validation", progress)
    costs = profile(model)
    policy = calibrate(table, costs, **recipe.goal.model_dump(exclude_none=True))
    save(model, out, policy, table, costs, record)
    return Artifact(model, policy, table, costs, record)


def _origin(backbone: BackboneSection) -> dict[str, Any] | None:
    """Where a backbone's first weights come from, if they are not random."""
    if backbone.checkpoint is None:
        return {"pretrained": backbone.name} if backbone.pretrained else None
    with backbone.checkpoint.open("rb") as file:
        return {"checkpoint": hashlib.file_digest(file, "sha256").hexdigest()[:16]}


def open_for(artifact: Artifact, data: str) -> Splits:
    """The splits of a data set, cut as they were for the training of this model.

    Raises:
        DataError: the data is not there, is damaged, or has other classes than the model.
    """
    splits, model = open_splits(data, **how_split(artifact), kind=type(artifact.model.input)), artifact.model
    check_classes(splits, data, model.task, model.num_outputs, model.classes)
    return splits_in_crops(splits, model.input.crops)


def check_classes(splits: Splits, data: str, task: Task, outputs: int, known: Sequence[str] | None) -> None:
    """Raise ``DataError`` unless the classes of a data set, by name and by number, are those of a model.

    Args:
        splits: the samples.
        data: what to call them.
        task: the model's, which may have no classes.
        outputs: how many the model has.
        known: their names, where they have names.
    """
    if not task.classes:
        return
    found = splits.classes
    if known is not None and found is not None and tuple(found) != tuple(known):
        if max(len(found), len(known)) <= 20:
            raise DataError(f"{data} has classes {', '.join(found)}; the model knows {', '.join(known)}")
        if len(found) != len(known):
            raise DataError(f"{data} has {len(found)} classes; the model knows {len(known)}")
        i = next(i for i, (a, b) in enumerate(zip(found, known, strict=True)) if a != b)
        raise DataError(f"class {i} of {data} is {found[i]!r}; to the model it is {known[i]!r}")
    for name, samples in splits.parts.items():
        targets = samples.targets
        if targets.dtype.kind != "i":
            raise DataError(f"the labels of {data} are {targets.dtype}, and a model of classes needs their numbers")
        if targets.min() < 0 or targets.max() >= outputs:
            raise DataError(
                f"the {name} split of {data} has labels from {targets.min()} to {targets.max()}; "
                f"the model has {outputs} outputs, 0 to {outputs - 1}"
            )


def evaluate(
    model: Artifact | EarlyExitModel,
    policy: Policy,
    data: Splits | Data,
    split: str = "test",
    batch: int = 64,
    progress: bool = False,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """What a model with a policy is worth on data, as JSON values.

    The measured speed-up is timed on 512 samples, spaced evenly over the data.

    Args:
        model: the model; or an artifact, whose cost table is taken.
        policy: who leaves where.
        data: splits; or samples, a map-style data set or its loader, all of which are read.
        split: which of the splits: ``test``, ``validation`` or ``train``.
        batch: the batch to time with.
        progress: whether to show progress bars.
        runtime: what computes both the answers and the times; PyTorch in fp32 if not given.

    Raises:
        UsageError: an unknown split, a policy for another model, or a stream.
        DataError: a split that the data does not have, or a sample in it that cannot be read.
    """
    return evaluate_each(model, {"": policy}, data, split, batch, progress, runtime)[""]


def evaluate_each(
    model: Artifact | EarlyExitModel,
    policies: Mapping[str, Policy],
    data: Splits | Data,
    split: str = "test",
    batch: int = 64,
    progress: bool = False,
    runtime: Runtime | None = None,
) -> dict[str, dict[str, Any]]:
    """``evaluate`` for several policies by name; the data goes through the model once for all of them."""
    splits = data if isinstance(data, Splits) else as_splits(data, split)
    samples = splits.of(split)
    inner, costs = (model, None) if isinstance(model, EarlyExitModel) else (model.model, model.costs)
    table = tabulate_samples(inner, splits, split, progress, runtime=runtime)
    costs = costs or profile(inner, repeats=0)
    results = {}
    for name, policy in policies.items():
        result = evaluate_table(table, costs, policy, inner.task)
        timing = bench_policy(inner, policy, samples, [batch], 512, 5, progress, runtime)[0]
        result["dynamic"]["speedup"]["measured"] = timing["measured_speedup"]
        result["dynamic"]["speedup_intervals"]["measured_range"] = timing["measured_speedup_range"]
        conditions = {key: timing[key] for key in ("runtime", "precision", "threads")}
        about = {"data": splits.record["source"], "split": split}
        results[name] = {**about, **result, **conditions, "timing": timing, "host": host(), "versions": versions()}
    return results


def tabulate_samples(
    model: EarlyExitModel,
    splits: Splits,
    split: str,
    progress: bool = False,
    batch_size: int = 128,
    runtime: Runtime | None = None,
    workers: int = 0,
) -> ExitTable:
    """The exit table of a split, as computed by a runtime; it remembers which data and split that is."""
    batches = loader(splits.of(split), model.input, batch_size, workers)
    record = splits.record
    about = {"data": record["source"], "split": split, "fingerprint": record["fingerprints"][split]}
    tracked = track(batches, split, len(batches), progress)
    compact = len(model.after) * len(splits.of(split)) * model.num_outputs > _LARGEST
    if runtime is None:
        return tabulate(model, tracked, about, compact)
    return tabulate_in(runtime, model, tracked, about, compact)


def file_batches(
    file: ExportedFile, data: str, split: str, progress: bool = False
) -> tuple[Iterable[tuple[Inputs, Tensor]], dict[str, Any]]:
    """Batches of a data set as an exported file takes them, and which data that is; the splits are those of training.

    Args:
        file: what was read of the file.
        data: a folder, an ``.npz`` file, ``torchvision/NAME`` or ``digits``.
        split: ``test``, ``validation`` or ``train``.
        progress: whether to show a progress bar.
    """
    about, reads = file.about, file.input
    record = about["record"]
    splits = open_splits(data, record.get("validation"), record.get("seed", 0), kind=type(reads))
    check_classes(splits, data, get_task(about["task"]), about["num_outputs"], about["classes"])
    samples = in_crops(splits.of(split), reads.crops)
    batches: Any = loader(samples, reads, 128)
    count = len(batches)
    if about["preprocess"]:  # samples as they are differ in size, so they come one by one
        targets, count = torch.as_tensor(samples.targets), len(samples)
        batches = ((reads.raw(samples.read(i)), targets[i : i + 1]) for i in range(count))
    source = splits.record
    found = {"data": source["source"], "split": split, "fingerprint": source["fingerprints"][split]}
    return track(batches, split, count, progress), found


def how_split(artifact: Artifact) -> dict[str, Any]:
    """How the data of a model was cut, for an exported file to remember."""
    recipe = artifact.record.get("recipe", {})
    return {"validation": recipe.get("data", {}).get("validation"), "seed": recipe.get("seed", 0)}
