"""The house plan: imports point one way."""

import ast
import subprocess
import sys
from pathlib import Path

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


def test_what_needs_no_extra_works_without_one():
    """Running, calibrating and the command line, where neither onnx nor a runtime for it is installed."""
    extras = ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras!r}))\n"
        "import offramp, offramp.cli, offramp.engine, offramp.bench.rows, offramp.calibration, offramp.pipeline\n"
        "from importlib import import_module\n"
        "for verb in ('demo', 'train', 'evaluate', 'calibrate', 'predict', 'monitor', 'bench', 'convert', 'list'):\n"
        "    import_module(f'offramp.cli.{verb}')\n"
        "offramp.run, offramp.train, offramp.load('cifar10')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
