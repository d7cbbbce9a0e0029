"""Pages that are written by a script say what the code says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from offramp.cost import head_costs
from offramp.registry import HEADS, OBJECTIVES, WEIGHTINGS

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"


def test_every_head_has_its_picture_its_cost_and_its_words():
    page = (DOCS / "heads.md").read_text()
    for name, (parameters, macs) in head_costs().items():
        assert f"| [{name}](#{name}) | {HEADS[name].paper} | {parameters:,} | {macs / 1e6:,.1f} |" in page
        assert f"## {name}\n\n![{name}](heads/{name}.png)" in page
        assert (DOCS / "heads" / f"{name}.png").stat().st_size > 5000


def test_the_page_is_what_its_script_writes(tmp_path):
    shutil.copy(DOCS / "heads.py", tmp_path)
    (tmp_path / "heads").mkdir()
    subprocess.run([sys.executable, tmp_path / "heads.py"], check=True)
    assert (tmp_path / "heads.md").read_text() == (DOCS / "heads.md").read_text()
    assert len(list((tmp_path / "heads").glob("*.png"))) == len(HEADS)


def test_the_command_line_is_what_the_page_says(tmp_path):
    typer = [sys.executable, "-m", "typer", "offramp.cli._app", "utils", "docs", "--name", "offramp"]
    title = ("--title", "The command line")
    subprocess.run([*typer, *title, "--output", str(tmp_path / "cli.md")], check=True)
    assert (tmp_path / "cli.md").read_text() == (DOCS / "cli.md").read_text(), "make docs writes it anew"


def test_every_objective_and_weighting_is_explained():
    page = (DOCS / "training.md").read_text()
    for name in OBJECTIVES:
        assert f"\n| `{name}`" in page
    for name in WEIGHTINGS:
        assert f"`{name}`" in page
