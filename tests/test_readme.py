"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "cli.md")]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_parse(page):
    from offramp.cli._app import app

    verbs = get_command(app).commands
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ offramp "):
                _, verb, *words = shlex.split(line.removeprefix("$ "), comments=True)
                verbs[verb].make_context(verb, words)


def test_the_readme_starts_with_the_two_commands():
    head = (ROOT / "README.md").read_text()[:1500]
    assert "make demo" in head
    assert "make test" in head
