"""What is trained: networks, exits on them, and by which labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

_AUGMENT = {
    "shift": 0.1,
    "speeds": [0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15],
    "noise": [0, 30],
    "noise_share": 0.7,
    "bands": 12,
    "frames": 20,
    "stripes": 2,
}
_OTHER_VOICES = {
    "gain": 18.0,
    "curve": 9.0,
    "speeds": [0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2],
    "noise_share": 0.5,
    "bands": 8,
    "frames": 12,
}
"""Louder and quieter, higher and lower, by other microphones: where there are four speakers to learn from."""
NETWORK: dict[str, Any] = {
    "batch_size": 32,
    "learning_rate": 0.002,
    "weight_decay": 0.05,
    "warmup_epochs": 2,
    "ema": 0.99,
    "label_smoothing": 0.1,
    "augment": _AUGMENT,
    "mixing": {"mixup_alpha": 0.4, "prob": 0.5},
}
HEADS: dict[str, Any] = {
    "batch_size": 64,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "warmup_epochs": 1,
    "precision": "fp32",
}
STEPS = 900
"""Of every head, whatever the number of its clips, so that none learns longer than another."""

KINDS = ("linear", "mlp", "cnn-ignore", "cnn-add", "sl-vit")
SEVEN = ("mlp", "cnn-ignore", "cnn-add", "cnn-project", "vit", "mixer", "resmlp")
"""Those of *Multi-Exit Vision Transformer*."""
EQUAL = "cnn-ignore, equal"
"""Comes to all kinds: with as many filters as make it cost what ``sl-vit`` costs at the same place."""
TAUGHT = ("sl-vit", EQUAL)
"""Heads that also learn from few labels, with and without copycat."""
WAYS = ("all", "few", "copycat")
"""By which labels heads learn: all; those of a quarter of the speakers; these, after the network's own answers to what
the others say."""
PRODUCT = "sl-vit"
"""The exits of networks that learn with them."""
MAX_DROP = 0.005


@dataclass(frozen=True)
class Field:
    """Where the comparison takes place.

    Args:
        name: what to call the data in the result.
        backbone: timm's name.
        args: of it.
        size: channels, mel bands, frames.
        epochs: of the network.
        options: of the input.
        folds: the speakers who are tested on in turn; empty where the file has splits.
        places: blocks after which exits stand.
        kinds: heads that are compared.
        training: how the network learns, where it is not as ``NETWORK`` says.
        start: the field from whose network of the same seed those here start.
        pretrained: whether they start from weights that the command is given.
    """

    name: str
    backbone: str
    args: Mapping[str, Any]
    size: tuple[int, int, int]
    epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    folds: Sequence[str] = ()
    places: tuple[int, ...] = (2, 4, 6)
    kinds: Sequence[str] = KINDS
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    pretrained: bool = False


_COMMANDS = "Speech Commands 12, test set re-split by speaker (Opus copy)"
_RESNET = {
    "in_chans": 1,
    "stem_type": "deep",
    "stem_width": 8,
    "channels": [16, 48, 160, 256],
    "layers": [1, 2, 3, 2],
}
FIELDS = {
    "speech_commands": Field(_COMMANDS, "resnet18", _RESNET, (1, 64, 101), 48, places=(2, 3, 4)),
    "speech_commands_vit": Field(
        _COMMANDS,
        "vit_tiny_patch16_224",
        {"img_size": [128, 96]},
        (3, 128, 96),
        10,
        {"n_fft": 1024},
        places=(3, 6, 9),
        kinds=("linear", *SEVEN, "sl-vit"),
        training={"learning_rate": 3e-4, "layer_decay": 0.8},
        pretrained=True,
    ),
    "fsdd": Field(
        "Free Spoken Digit Dataset, one speaker left out",
        "resnet18",
        _RESNET,
        (1, 64, 101),
        12,
        {"f_max": 4000.0},  # its clips are of 8 kHz
        places=(2, 3, 4),
        folds=("george", "jackson", "lucas", "nicolas", "theo", "yweweler"),
        training={"learning_rate": 0.001, "mixing": None, "augment": {**_AUGMENT, **_OTHER_VOICES}},
        start="speech_commands",
    ),
}


def training_of(place: Field, exits: bool = False) -> dict[str, Any]:
    """How the networks of a field learn: those with exits a third as long, because they begin with what those without
    have learned; all in the last fifth of their time from clips that are not mixed."""
    epochs = max(1, round(place.epochs / 3)) if exits else place.epochs
    return {**NETWORK, "epochs": epochs, "mixing_epochs": round(0.8 * epochs), **place.training}


@dataclass(frozen=True)
class Network:
    """A network to be trained whole.

    Args:
        fold: the speaker who is tested on; empty where the file has splits.
        seed: of everything random.
        exits: whether it has exits, and learns with them, from what the network without them has learned.
    """

    fold: str
    seed: int
    exits: bool = False

    @property
    def alone(self) -> Network:
        """The same without exits."""
        return replace(self, exits=False)

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(filter(None, ("exits" if self.exits else "static", self.fold, str(self.seed))))


@dataclass(frozen=True)
class Heads:
    """One kind of head at all places, on a frozen network.

    Args:
        network: on which.
        kind: which head.
        way: by which labels.
    """

    network: Network
    kind: str
    way: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.network.name}/{self.kind.replace(', ', '-')}-{self.way}"


def networks(place: Field, seeds: int) -> list[Network]:
    """All of them, those without exits first."""
    folds = place.folds or ("",)
    return [Network(fold, seed, exits) for exits in (False, True) for seed in range(seeds) for fold in folds]


def heads(place: Field, seeds: int) -> list[Heads]:
    """All kinds on every network without exits."""
    return [
        Heads(network, kind, way)
        for network in networks(place, seeds)
        if not network.exits
        for kind in (*place.kinds, EQUAL)
        for way in (WAYS if kind in TAUGHT else WAYS[:1])
    ]
