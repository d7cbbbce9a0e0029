"""Every benchmark is a command that starts."""

import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent.parent.parent / "benchmarks"
NAMES = sorted(
    p.stem for p in HERE.iterdir() if (p.suffix == ".py" and p.stem[0] != "_") or (p / "__main__.py").exists()
)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_takes(name, monkeypatch, capsys):
    package = (HERE / name).is_dir()
    monkeypatch.setattr("sys.argv", [name, "--help"])
    module = importlib.import_module(f"benchmarks.{name}.__main__" if package else f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out
