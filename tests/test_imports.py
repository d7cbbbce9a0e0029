"""The house plan: imports point one way."""

import ast
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import offramp

SRC = Path(offramp.__file__).parent
ORDER = [
    {"_batches", "errors", "versions", "_device", "_files", "_folders", "_progress", "models"},
    {"types", "registry"},
    {"tasks", "recipe", "inputs"},
    {"backbones", "heads", "data", "search"},
    {"policies", "paths", "model"},
    {"calibration"},
    {"card", "artifact", "cost", "convert", "layouts", "export"},
    {"engine"},
    {"bench", "training", "report", "serving"},
    {"pipeline", "testing", "protocol", "answers"},
    {"cluster"},
    {"cli", "__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("offramp."):
            found.add(node.module.split(".")[1])
    return found


def test_every_room_has_a_place():
    rooms = {p.stem for p in SRC.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert rooms == RANK.keys()


def test_imports_point_one_way():
    wrong = []
    for file in SRC.rglob("*.py"):
        room = file.relative_to(SRC).parts[0].removesuffix(".py")
        wrong += [
            f"{file.relative_to(SRC)} imports {other}"
            for other in imports(file)
            if room != "__init__" and other != room and RANK[other] > RANK[room]
        ]
    assert not wrong


def test_import_is_light():
    code = (
        "import offramp, offramp.cli, sys; print(sorted({'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_load():
    for name in offramp.__all__:
        assert getattr(offramp, name) is not None


def of_main_dependencies() -> set[str]:
    """The distributions that ``pip install offramp`` brings, by name, with what each of them asks for."""
    found: set[tuple[str, str]] = set()
    open_ones = [("offramp", "")]
    while open_ones:
        name, extra = open_ones.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for line in map(Requirement, wanted):
            if line.marker is None or line.marker.evaluate({"extra": extra}):
                open_ones += [(canonicalize_name(line.name), e) for e in ("", *line.extras)]
    return {name for name, _ in found}


@pytest.fixture
def bare(tmp_path):
    """A folder of packages as after ``pip install offramp``: what else is installed here is not in it."""
    site = tmp_path / "site"
    site.mkdir()
    for name in of_main_dependencies():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for first in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (link := site / first).exists():
                link.symlink_to(found.locate_file(first))
    (site / "offramp").symlink_to(SRC)
    return site


def test_what_needs_no_extra_works_without_one(bare, tmp_path):
    """The command line, the demo's first half and an answer, where nothing but the main dependencies is installed."""
    there = {entry.name for entry in bare.iterdir()}
    assert {"torch", "timm", "numpy", "offramp"} <= there
    assert not {"onnx", "onnxruntime", "openvino", "fastapi", "ray", "pyarrow", "matplotlib"} & there
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "teal.png")
    code = (
        "import sys\n"
        "import offramp, offramp.cli, offramp.engine, offramp.bench.rows, offramp.calibration, offramp.pipeline\n"
        "from importlib import import_module\n"
        "for verb in ('demo', 'train', 'evaluate', 'calibrate', 'predict', 'monitor', 'bench', 'convert', 'list'):\n"
        "    import_module(f'offramp.cli.{verb}')\n"
        "offramp.run, offramp.train\n"
        "from offramp.cli.demo import _photographs\n"
        "assert len(_photographs(show_them=True)) == 2\n"
        f"sys.argv = ['offramp', 'predict', '--model', 'cifar10', {str(tmp_path / 'teal.png')!r}]\n"
        "offramp.cli.main()\n"
    )
    # without site: the folder alone is looked in
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(bare)},
    )
    assert done.returncode == 0, done.stderr
    assert "teal.png" in done.stdout
