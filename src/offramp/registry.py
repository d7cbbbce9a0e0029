"""Every name that a user can say, in tables of one line each; nothing is imported before it is used."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from offramp.errors import UsageError

T = TypeVar("T")

OWN = "offramp"
"""The package whose parts need nothing beside Offramp."""


@dataclass(frozen=True)
class Entry:
    """One line of a table: where the object lives (``module:name``), the paper it is from, one sentence about it.

    Args:
        target: ``module:name``.
        about: one sentence.
        paper: arXiv numbers, or another name.
        package: what has to be installed for it, or, where it was registered by hand, the module that did so.
    """

    target: str
    about: str
    paper: str = ""
    package: str = OWN

    def load(self) -> Any:
        """Import the object. Raises ``UsageError`` where a package announces what it does not have."""
        module, _, name = self.target.partition(":")
        try:
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            if self.package == OWN:
                raise
            raise UsageError(f"{self.package} announces {self.target}, which cannot be imported: {error}") from error
        return found


class Table(Mapping[str, Entry]):
    """A table of names of one kind: Offramp's own, those of installed packages, and those that were registered.

    A package adds names by entry points of the group ``offramp.GROUP`` (``offramp.heads``, …), ``name =
    "module:object"``. They are read when a name is asked for that is not Offramp's own; nothing is imported until one
    is used.

    Args:
        kind: what one of them is called: ``head``, ``policy``, ….
        entries: Offramp's own.
        group: where packages announce theirs; None for a table that is closed.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._own = dict(entries)
        self._registered: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._own[name] if name in self._own else self._others()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._others()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._others()

    def __len__(self) -> int:
        return len(self._own) + len(self._others())

    def add(self, name: str, target: Any, about: str, paper: str) -> None:
        """Register an object. Raises ``UsageError`` for a name that another one has."""
        path, module = _path(target), str(getattr(target, "__module__", None))
        if name in self and self[name].target != path:
            raise UsageError(f"the {self.kind} {name!r} is {self[name].target}: choose another name")
        self._own.setdefault(name, Entry(path, about, paper, module.partition(".")[0]))
        self._registered[name] = target

    def forget(self, name: str) -> None:
        """Take a name away that was registered in this process."""
        if name in self._registered:
            del self._registered[name], self._own[name]

    def resolve(self, name_or_object: Any) -> Any:
        """The object behind a name; an object is returned as it is. Raises ``UsageError`` for an unknown name."""
        if not isinstance(name_or_object, str):
            return name_or_object
        if name_or_object in self._registered:
            return self._registered[name_or_object]
        if name_or_object not in self:
            raise UsageError(unknown(self.kind, name_or_object, self))
        return self[name_or_object].load()

    def name_of(self, target: Any) -> str | None:
        """The name that a class or function has in this table; None for one that is not in it."""
        path = _path(target)
        module = path.partition(".")[0].partition(":")[0]
        for name, entry in self.items():
            # a package may announce a shorter path than that of the module where the class stands
            other = entry.package != OWN and entry.target.partition(".")[0].partition(":")[0] == module
            if entry.target == path or (other and self.resolve(name) is target):
                return name
        return None

    def _others(self) -> Mapping[str, Entry]:
        found = {} if self.group is None else _announced(self.group)
        return {name: entry for name, entry in found.items() if name not in self._own}


@functools.cache
def _announced(group: str) -> Mapping[str, Entry]:
    """What the installed packages announce."""
    points = importlib.metadata.entry_points(group=f"offramp.{group}")
    return {
        point.name: Entry(point.value, f"of the package {package}", package=package)
        for point in points
        if (package := point.dist.name if point.dist is not None else point.module.partition(".")[0])
    }


def packages(names: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """For names in tables (``{"heads": ["mine"], …}``) the packages that they come from, Offramp's own left out."""
    found = {
        group: {name: TABLES[group][name].package for name in used if TABLES[group][name].package != OWN}
        for group, used in names.items()
    }
    return {group: brought for group, brought in found.items() if brought}


def check_packages(needed: Any) -> None:
    """Raise ``UsageError`` for a name that ``packages`` found and that is not known here."""
    for group, names in needed.items() if isinstance(needed, dict) else ():
        for name, package in names.items() if isinstance(names, dict) and group in TABLES else ():
            if name not in TABLES[group]:
                raise UsageError(
                    f"the {TABLES[group].kind} {name!r} is of the package {package!r}, which is not installed (or "
                    "not imported, where it registers its parts when it is)"
                )


def _path(target: Any) -> str:
    return f"{getattr(target, '__module__', None)}:{getattr(target, '__qualname__', None)}"


def register(kind: str, name: str, *, about: str | None = None, paper: str = "") -> Callable[[T], T]:
    """Give a part of your own a name, which recipes, lists, artifacts and exported files then know.

    ::

        @offramp.register("head", "mine")
        class Mine(nn.Module): ...

    A name lasts as long as the process: a script that loads a model with it imports the module that registers it
    first. A package that is installed announces its parts by entry points instead (``Table``).

    Args:
        kind: ``head``, ``policy``, ``objective``, ``weighting``, ``runtime``, ``task`` or ``input``.
        name: the name.
        about: one sentence for ``offramp list``; the first line of the docstring if not given.
        paper: where it is from.

    Raises:
        UsageError: an unknown kind, or a name that something else has.
    """
    tables = {table.kind: table for table in TABLES.values() if table.group is not None}
    if kind not in tables:
        raise UsageError(unknown("kind of part", kind, tables))

    def add(target: T) -> T:
        said = (target.__doc__ or "").strip().partition("\n")[0] if about is None else about
        tables[kind].add(name, target, said, paper)
        return target

    return add


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: the nearest match, and the names there are if they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    sentence = f"there is no {kind} {name!r}"
    if near:
        sentence += f"; did you mean {near[0]!r}?"
    if len(names) <= 40:
        sentence += f" Known: {', '.join(names)}."
    return sentence


BACKBONES = Table(
    "backbone family",
    {
        "vit": Entry(
            "offramp.backbones.vit:ViTBackbone",
            "Vision Transformers of timm's VisionTransformer class, DeiT included; cut after every block",
            "2010.11929, 2012.12877",
        ),
        "swin": Entry("offramp.backbones.swin:SwinBackbone", "Swin Transformers, cut after every block", "2103.14030"),
        "maxxvit": Entry(
            "offramp.backbones.maxxvit:MaxxVitBackbone",
            "CoAtNets and MaxViTs, cut after every block",
            "2106.04803, 2204.01697",
        ),
        "resnet": Entry("offramp.backbones.cnn:ResNetBackbone", "ResNets, cut after every block", "1512.03385"),
        "densenet": Entry("offramp.backbones.cnn:DenseNetBackbone", "DenseNets, cut after every layer", "1608.06993"),
        "inception": Entry("offramp.backbones.cnn:InceptionBackbone", "Inception-v3, cut after a block", "1512.00567"),
        "graph": Entry(
            "offramp.backbones.graph:GraphBackbone",
            "any other timm model, cut by torch.fx at the modules that timm's feature_info names",
        ),
    },
)

HEADS = Table(
    "head",
    {
        "linear": Entry(
            "offramp.heads.linear:Linear",
            "norm, then the tokens that the backbone itself reads (class token, or the mean of the patches), one layer",
            "baseline",
        ),
        "mlp": Entry(
            "offramp.heads.mlp:MLP",
            "the same reading through a perceptron with two hidden layers",
            "2106.15183",
        ),
        "cnn-ignore": Entry(
            "offramp.heads.cnn:CNNIgnore", "patches as a map through one convolution, class token ignored", "2106.15183"
        ),
        "cnn-add": Entry("offramp.heads.cnn:CNNAdd", "the same, class token added to every patch", "2106.15183"),
        "cnn-project": Entry(
            "offramp.heads.cnn:CNNProject", "the same, class token joined to every patch and projected", "2106.15183"
        ),
        "vit": Entry("offramp.heads.vit:ViT", "one more encoder block, then the class token", "2106.15183"),
        "mixer": Entry("offramp.heads.mixer:Mixer", "one MLP-Mixer block, then the mean of the patches", "2106.15183"),
        "resmlp": Entry("offramp.heads.resmlp:ResMLP", "one ResMLP layer, then the mean of the patches", "2106.15183"),
        "lph": Entry(
            "offramp.heads.lph:LPH",
            "local perception: convolutions over the patch map, for shallow exits",
            "2308.00255",
        ),
        "gah": Entry(
            "offramp.heads.gah:GAH",
            "global aggregation: attention among every second or third patch, for deep exits",
            "2308.00255",
        ),
        "sl-vit": Entry(
            "offramp.heads.slvit:SLViT", "one narrow encoder layer on patches of the feature map", "2105.09121"
        ),
    },
    group="heads",
)

OBJECTIVES = Table(
    "objective",
    {
        "joint": Entry(
            "offramp.training.objectives.joint:Joint",
            "backbone and exits together, on a weighted sum of their losses",
            "1709.01686, 2106.15183",
        ),
        "gradient-equilibrium": Entry(
            "offramp.training.objectives.equilibrium:GradientEquilibrium",
            "joint, with each block's gradient the mean over the exits behind it",
            "1908.06294",
        ),
        "self-distillation": Entry(
            "offramp.training.objectives.self_distillation:SelfDistillation",
            "joint, with the final exit teaching the others",
            "1905.08094",
        ),
        "alternating": Entry(
            "offramp.training.objectives.alternating:Alternating",
            "the final exit alone and all exits together, step by step in turn",
            "BERxiT, EACL 2021",
        ),
        "alternating-weighted": Entry(
            "offramp.training.objectives.alternating:AlternatingWeighted",
            "the same, exits weighted by depth: LGViT's first stage",
            "2308.00255",
        ),
        "backbone": Entry(
            "offramp.training.objectives.backbone:Backbone", "the final exit alone; heads do not run", "baseline"
        ),
        "frozen": Entry(
            "offramp.training.objectives.frozen:Frozen",
            "heads only, each on its own loss; the backbone does not change by one bit",
            "2106.15183, 2105.09121",
        ),
        "layerwise": Entry(
            "offramp.training.objectives.layerwise:Layerwise",
            "exit by exit from the first to the last, all before it frozen",
            "2106.15183",
        ),
        "mixed": Entry("offramp.training.objectives.mixed:Mixed", "the backbone first, then everything", "2407.14320"),
        "lgvit": Entry(
            "offramp.training.objectives.lgvit:LGViT",
            "two stages: alternating-weighted, then distillation into the heads",
            "2308.00255",
        ),
        "head-distillation": Entry(
            "offramp.training.objectives.lgvit:HeadDistillation",
            "heads only, taught by the frozen backbone and by each other: LGViT's second stage",
            "2308.00255",
        ),
        "copycat": Entry(
            "offramp.training.objectives.copycat:Copycat",
            "heads only, first on unlabelled images that the backbone labels, then on true labels",
            "2105.09121, 1806.05476",
        ),
    },
    group="objectives",
)

WEIGHTINGS = Table(
    "weighting",
    {
        "uniform": Entry("offramp.training.objectives.weightings:uniform", "every exit counts the same"),
        "depth": Entry(
            "offramp.training.objectives.weightings:depth", "an exit counts as much as the blocks it has seen"
        ),
        "final-doubled": Entry(
            "offramp.training.objectives.weightings:final_doubled", "the final exit counts twice", "2106.15183"
        ),
    },
    group="weightings",
)

POLICIES = Table(
    "policy",
    {
        "threshold": Entry(
            "offramp.policies.threshold:Threshold",
            "leave at the first exit whose score reaches its threshold",
            "1709.01686, 2308.00255",
        ),
        "patience": Entry(
            "offramp.policies.patience:Patience", "leave when exits have agreed often enough in a row", "2006.04152"
        ),
        "patient-confident": Entry(
            "offramp.policies.patience:PatientConfident",
            "leave when exits have been sure often enough in a row",
            "PCEE-BERT, 2308.00255",
        ),
        "vote": Entry(
            "offramp.policies.vote:Vote", "leave when enough of the exits so far give one answer", "2301.07099"
        ),
        "ensemble": Entry(
            "offramp.policies.ensemble:Ensemble",
            "leave when the geometric mean of the exits so far is sure; it answers",
            "2106.05409",
        ),
        "cascade": Entry(
            "offramp.policies.cascade:Cascade",
            "leave where an exit is sure that also hears the logits of the exit before",
            "2106.05409",
        ),
        "reliability": Entry(
            "offramp.policies.reliability:Reliability",
            "leave where the exit's validated accuracy at this score is high enough",
            "2412.19325",
        ),
        "gates": Entry("offramp.policies.gates:Gates", "a learned logistic gate an exit, on four scores", "2310.09163"),
        "scheduler": Entry(
            "offramp.policies.scheduler:Scheduler", "a learned score an exit, thresholds by quota", "2301.07099"
        ),
        "forced": Entry(
            "offramp.policies.forced:Forced",
            "leave at an exit that was fixed beforehand; measures the engine apart from the accuracy",
        ),
    },
    group="policies",
)

RUNTIMES = Table(
    "runtime",
    {
        "torch": Entry("offramp.engine.torch:TorchRuntime", "PyTorch, eager, on the device that holds the model"),
        "torch-compiled": Entry("offramp.engine.torch:CompiledRuntime", "PyTorch, every piece compiled"),
        "onnxruntime": Entry("offramp.engine.onnxruntime:OnnxRuntime", "ONNX Runtime, one self-exiting file"),
        "openvino": Entry("offramp.engine.openvino:OpenVinoRuntime", "OpenVINO, the same file, in fp32 or bf16"),
    },
    group="runtimes",
)

TASKS = Table(
    "task",
    {
        "classification": Entry("offramp.tasks:Classification", "one class of several; accuracy"),
        "counting": Entry("offramp.tasks:Counting", "one number; mean absolute error", "2105.09121, 2106.15183"),
    },
    group="tasks",
)

MODELS = Table(
    "model in the box",
    {
        "cifar10": Entry(
            "offramp.models:CIFAR10",
            "CoAtNet with four linear exits for the ten classes of CIFAR-10; trained by recipes/cifar10.yaml",
            "2106.04803, 1905.08094",
        ),
    },
)

INPUTS = Table(
    "input",
    {
        "image": Entry("offramp.inputs.image:ImageInput", "an image, prepared by timm's transforms"),
    },
    group="inputs",
)
TABLES: dict[str, Table] = {
    "heads": HEADS,
    "backbones": BACKBONES,
    "policies": POLICIES,
    "objectives": OBJECTIVES,
    "weightings": WEIGHTINGS,
    "runtimes": RUNTIMES,
    "tasks": TASKS,
    "inputs": INPUTS,
    "models": MODELS,
}
