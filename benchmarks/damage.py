"""Does everything that is loaded survive damage? Thousands of damaged files of every kind that Offramp reads.

Files are cut, and bytes in them flipped, zeroed, inserted; values in JSON and YAML are swapped for odd ones. Artifacts
and exported files also get odd values from somebody who knows how to make the checksums right again, so that what lies
behind the checksums is tried as well. Each file must end in one of Offramp's own errors, or be read as what it was; a
checksum that was made right again may also let another description pass, never other weights.

*Other exceptions*, *changed and accepted*, and *written* must be 0. Peak memory is that of the process beyond what it
had after reading one whole file of each kind.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
import yaml
from PIL import Image

import offramp
from benchmarks import publish
from offramp._progress import track
from offramp.artifact import load_artifact, load_table
from offramp.artifact.saved import sealed
from offramp.data import open_splits
from offramp.engine import open_runtime
from offramp.errors import OfframpError
from offramp.export.metadata import DIGEST, ENTRY
from offramp.export.metadata import sealed as sealed_file
from offramp.inputs._decode import open_image
from offramp.policies import load_policy, policy_to_json
from offramp.policies.ensemble import Ensemble
from offramp.policies.gates import Gates
from offramp.policies.patience import Patience
from offramp.policies.reliability import Reliability
from offramp.policies.threshold import Threshold
from offramp.recipe import read_recipe

Bytes = Callable[[bytes, np.random.Generator], bytes]

SIZE = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 5, "embed_dim": 32, "depth": 4, "num_heads": 2}
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 3, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**31, 65_536, 10**9,
    "", "x", "x" * 5000, "../../secret", "hf-hub:somebody/something", "local-dir:/", "0.5", [], {}, [[]], [None],
    [0.1] * 1000, {"a": {"b": {}}}, [1, 2, 3, 4, 5, 6, 7],
]  # fmt: skip


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def zero(content: bytes, rng: np.random.Generator) -> bytes:
    first, length = int(rng.integers(len(content))), int(rng.integers(1, 200))
    return content[:first] + bytes(len(content[first : first + length])) + content[first + length :]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 40))) + content[place:]


DAMAGE: dict[str, Bytes] = {"cut": cut, "flipped": flip, "zeroed": zero, "inserted": insert}


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree of plain values."""
    yield above
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*above, key))


def swapped(values: Any, rng: np.random.Generator) -> Any:
    """Plain values with one of them, anywhere, odd or gone."""
    changed = copy.deepcopy(values)
    *above, last = list(places(values))[int(rng.integers(1, sum(1 for _ in places(values))))]
    inner = changed
    for key in above:
        inner = inner[key]
    if isinstance(inner, dict) and rng.random() < 0.15:
        del inner[last]
    else:
        inner[last] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return changed


@dataclass
class Kind:
    """One kind of file.

    Args:
        path: where a whole one is; a folder for an artifact.
        read: reads it, to something that says what was read; it is used as a user would use it.
        damages: by name, what writes a damaged one in the place of the whole one.
        strict: whether something else than the whole one may come out without an error.
    """

    path: Path
    read: Callable[[Path], Any]
    damages: dict[str, Callable[[np.random.Generator], None]]
    strict: bool = True
    free: set[str] = field(default_factory=set)


def in_bytes(path: Path) -> dict[str, Callable[[np.random.Generator], None]]:
    content = path.read_bytes()

    def of(damage: Bytes) -> Callable[[np.random.Generator], None]:
        return lambda rng: path.write_bytes(damage(content, rng)) and None

    return {name: of(damage) for name, damage in DAMAGE.items()}


def in_json(path: Path) -> dict[str, Callable[[np.random.Generator], None]]:
    values = json.loads(path.read_text())
    return {"swapped": lambda rng: path.write_text(json.dumps(swapped(values, rng))) and None}


def artifact_kind(folder: Path, model: Any, table: Any, costs: Any) -> Kind:
    path, x = folder / "artifact", torch.randn(2, 1, 16, 16)
    offramp.save(model, path, offramp.calibrate(table, costs, target_speedup=1.2), table, costs, {"why": "damage"})
    whole = {f.name: f.read_bytes() for f in path.iterdir() if f.name != "card.md"}
    config = json.loads(whole["config.json"])

    def read(path: Path) -> Any:
        artifact = load_artifact(path)
        trace = offramp.run(artifact.model, x, artifact.policy) if artifact.policy else None
        weights = [p.clone() for p in artifact.model.state_dict().values()]
        return (
            weights,
            artifact.policy,
            artifact.costs,
            artifact.model.input,
            None if trace is None else trace.exit,
        )

    def anywhere(damage: Bytes) -> Callable[[np.random.Generator], None]:
        def write(rng: np.random.Generator) -> None:
            name = sorted(whole)[int(rng.integers(len(whole)))]
            (path / name).write_bytes(damage(whole[name], rng))

        return write

    def swap(rng: np.random.Generator) -> None:
        name = ("config.json", "policy.json", "costs.json")[int(rng.integers(3))]
        (path / name).write_text(json.dumps(swapped(json.loads(whole[name]), rng)))

    def resealed(rng: np.random.Generator) -> None:
        files = dict(config["sha256"]["files"])
        changed = {k: v for k, v in config.items() if k != "sha256"}
        name = ("config.json", "policy.json", "costs.json")[int(rng.integers(3))]
        if name == "config.json":
            changed = swapped(changed, rng)
        else:
            import hashlib

            content = json.dumps(swapped(json.loads(whole[name]), rng)).encode()
            (path / name).write_bytes(content)
            files[name] = hashlib.sha256(content).hexdigest()
        (path / "config.json").write_text(json.dumps(sealed(changed, files)))

    damages = {name: anywhere(damage) for name, damage in DAMAGE.items()}
    return Kind(
        path, read, {**damages, "swapped": swap, "swapped, checksum right": resealed}, free={"swapped, checksum right"}
    )


def file_kind(folder: Path, model: Any) -> Kind:
    path, x = folder / "model.onnx", torch.randn(2, 1, 16, 16)
    offramp.export_onnx(model, path, Threshold((0.3, 0.3)))
    runtime = open_runtime("onnxruntime", threads=1)
    whole = onnx.load(path)
    about = json.loads(next(p.value for p in whole.metadata_props if p.key == ENTRY))

    def read(path: Path) -> Any:
        session = runtime.open(path)
        trace = session(x)
        return trace.output, trace.exit, session.file.policy, dict(session.file.about)

    def resealed(rng: np.random.Generator) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(whole)
        kept = [p for p in proto.metadata_props if p.key not in (ENTRY, DIGEST)]
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)
        path.write_bytes(sealed_file(proto, swapped(about, rng)))

    return Kind(path, read, {**in_bytes(path), "swapped, checksum right": resealed}, free={"swapped, checksum right"})


def kinds(folder: Path) -> dict[str, Kind]:
    """One whole file of each kind, and the ways to damage it."""
    overlay = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear"}
    inner = timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=overlay, **SIZE)
    model = offramp.attach(inner, [offramp.Exit(1), offramp.Exit(3, "mlp")]).eval()
    batches = [(torch.randn(50, 1, 16, 16), torch.randint(5, (50,)))]
    table, costs = offramp.tabulate(model, batches), offramp.profile(model, repeats=2)
    found = {"artifact": artifact_kind(folder, model, table, costs), "exported file": file_kind(folder, model)}
    for policy in (
        Threshold((0.5, None), temperatures=(1.0, 2.0, 1.0)),
        Patience(1, (0, 1)),
        Ensemble((0.5, 0.6), (0, 1), ((1.0,), (0.2, 1.5)), ((0.0,) * 5, (0.1,) * 5)),
        Reliability(0.6, (0,), (((0.2, 1.0), (0.1, 1.0)),)),
        Gates(((1.0, 0.0, 0.0, 0.0),), (0.5,), (0,)),
    ):
        path = folder / f"{type(policy).__name__}.json"
        path.write_text(json.dumps(policy_to_json(policy)))
        found[f"policy, {type(policy).__name__}"] = Kind(path, load_policy, {**in_bytes(path), **in_json(path)}, False)
    offramp.artifact.save_table(table, folder / "table.safetensors")
    found["table"] = Kind(
        folder / "table.safetensors", lambda p: load_table(p).outputs, in_bytes(folder / "table.safetensors"), False
    )
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for suffix in ("png", "jpg", "webp", "tiff", "gif", "bmp"):
        path = folder / f"image.{suffix}"
        Image.fromarray(pixels).save(path)
        found[f"image, {suffix}"] = Kind(path, lambda p: np.asarray(open_image(str(p))), in_bytes(path), False)
    for form, arrays in archives(pixels).items():
        path = folder / f"{form}.npz"
        np.savez(path, **arrays)
        found[f"data, {form}"] = Kind(path, read_data, in_bytes(path), False)
    path = folder / "recipe.yaml"
    values = {
        "name": "x",
        "data": {"source": "digits", "validation": 0.2},
        "backbone": {"name": "vit_tiny_patch16_224", "args": SIZE},
        "exits": [{"after": 1, "head": "mlp"}, {"after": 2}],
        "objective": {"name": "joint"},
        "training": {"epochs": 2, "learning_rate": 0.01, "mixing": {"mixup_alpha": 0.1}},
        "goal": {"max_drop": 0.01},
    }
    path.write_text(yaml.safe_dump(values))
    swaps = {"swapped": lambda rng: path.write_text(yaml.safe_dump(swapped(values, rng))) and None}
    found["recipe"] = Kind(path, read_recipe, {**in_bytes(path), **swaps}, False)
    return found


def archives(pixels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Data sets in both forms: pixels, and image files joined."""
    encoded = []
    for shift in range(20):
        buffer = io.BytesIO()
        Image.fromarray(np.roll(pixels, shift)).save(buffer, "png")
        encoded.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, encoded)])
    joined, labels = np.frombuffer(b"".join(encoded), np.uint8), np.arange(20) % 2
    x = np.random.default_rng(1).integers(0, 255, (20, 8, 8), np.uint8)
    return {
        "pixels": {"x_train": x, "y_train": labels, "x_test": x, "y_test": labels},
        "joined": {"train_bytes": joined, "train_offsets": offsets, "train_labels": labels},
    }


def read_data(path: Path) -> Any:
    """Every image of every split."""
    splits = open_splits(str(path), 4)
    parts = (splits.train, splits.validation, splits.test)
    return [np.asarray(part.read(i)) for part in parts for i in range(len(part))]


def same(a: Any, b: Any) -> bool:
    """Whether two readings are of the same."""
    if isinstance(a, torch.Tensor | np.ndarray):
        return type(a) is type(b) and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def weights_of(reading: Any) -> Any:
    """What of the reading of a model must be the same even where a checksum was made right again."""
    return reading[0]


def snapshot(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def one(kind: Kind, damage: str, rng: np.random.Generator, whole: Any) -> tuple[str, str]:
    """How one damaged file ended, and what was said."""
    kind.damages[damage](rng)
    try:
        reading = kind.read(kind.path)
    except OfframpError as error:
        text = str(error)
        return ("refused" if text and "Traceback" not in text else "other exception"), text
    except Exception as error:
        return "other exception", f"{type(error).__name__}: {error}"
    if same(reading, whole):
        return "unharmed", ""
    if damage in kind.free:
        return ("another description" if same(weights_of(reading), weights_of(whole)) else "changed and accepted"), ""
    return ("changed and accepted" if kind.strict else "another, whole"), ""


def restore(kind: Kind, whole: dict[Path, bytes]) -> None:
    for path, content in whole.items():
        path.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds whose name begins so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    warnings.simplefilter("error")  # a warning that leaks is an exception that nobody asked for
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {k: v for k, v in kinds(folder).items() if k.startswith(args.only or "")}
        readings = {name: kind.read(kind.path) for name, kind in found.items()}
        rows, failures = try_all(found, readings, folder, args)
    endings = (
        "refused",
        "unharmed",
        "another, whole",
        "another description",
        "changed and accepted",
        "other exception",
    )
    publish(
        "damage",
        {
            "rows": rows,
            "total": {ending: sum(row.get(ending, 0) for row in rows) for ending in ("files", *endings, "written")},
            "peak_mb_beyond": max(row["peak_mb_beyond"] for row in rows),
            "slowest_seconds": max(row["slowest_seconds"] for row in rows),
            "failures": failures[:20],
        },
    )


def try_all(
    found: dict[str, Kind], readings: dict[str, Any], folder: Path, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each kind and damage, and what went wrong."""
    cells: Sequence[tuple[str, str]] = [(name, damage) for name, kind in found.items() for damage in kind.damages]
    each, base = -(-args.count // len(cells)), peak_mb()
    rows, failures = [], []
    for name, damage in track(cells, "damaging", len(cells)):
        kind = found[name]
        row: dict[str, Any] = {"kind": name, "damage": damage, "files": each}
        files = [kind.path] if kind.path.is_file() else [f for f in kind.path.iterdir() if f.is_file()]
        whole, there, slowest = {f: f.read_bytes() for f in files}, snapshot(folder), 0.0
        rng = np.random.default_rng([args.seed, len(rows)])
        for _ in range(each):
            start = time.perf_counter()
            ending, said = one(kind, damage, rng, readings[name])
            slowest = max(slowest, time.perf_counter() - start)
            row[ending] = row.get(ending, 0) + 1
            if ending in ("other exception", "changed and accepted"):
                failures.append(f"{name}, {damage}: {ending} {said}"[:300])
            restore(kind, whole)
        row["written"] = len(snapshot(folder) ^ there)
        row |= {"peak_mb_beyond": round(peak_mb() - base, 1), "slowest_seconds": round(slowest, 2)}
        rows.append(row)
    return rows, failures


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
