"""The house keeps its shape: who may import whom, what stays lean, what is documented."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "compiler"
STAGES = ["frontend", "compress", "passes", "schedule", "tune", "build", "bundle", "deploy", "cli"]
EVERYWHERE = {
    "target",
    "support",
    "target_detect",
    "target_isa",
    "target_schema",
    "target_tvm",
    "target_yaml",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path):
    """Return the part of the house that a file belongs to: a stage, ``support`` or a top-level module."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """Return the parts of the house that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("compiler.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_stage_imports_a_later_one(path):
    here, used = place(path), imports(path)
    if here in ("support", "ir"):
        assert used <= {here}
    elif here in STAGES:
        later = set(STAGES[STAGES.index(here) + 1 :])
        assert not used & later, f"{path} imports {used & later}, which come later"
        if here != "cli":
            assert "driver" not in used or path.name in PEERS, f"{path} imports the driver"


PEERS = {"benchmark_workload.py", "kiln.py"}
"""What measures the whole of Kiln is the only other place that may call the whole of it."""


def test_targets_know_no_stage():
    for path in FILES:
        if place(path).startswith("target"):
            assert not imports(path) & set(STAGES), path


def loaded(statement):
    """Return the names of the modules that a new process has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import compiler", {"tvm", "torch", "numpy", "rich", "typer"}),
        ("import compiler.cli.app", {"tvm", "torch", "numpy"}),
        ("import compiler.cli\ncompiler.cli.main(['--help'])", {"tvm", "torch", "numpy"}),
        ("import compiler.cli\ncompiler.cli.main(['targets', '--help'])", {"tvm", "torch", "numpy"}),
        ("import compiler.bundle", {"tvm", "torch"}),
        ("import compiler.deploy", {"tvm", "torch"}),
        ("import compiler.target, compiler.target_detect", {"tvm", "torch"}),
    ],
)  # fmt: skip
def test_imports_stay_lean(statement, absent):
    assert not loaded(statement) & absent


def test_the_deploy_stage_never_imports_torch_outside_of_functions():
    for folder in ("deploy", "bundle", "cli", "support"):
        for path in (PACKAGE / folder).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in getattr(node, "names", [])] + [
                    getattr(node, "module", "") or ""
                ]
                top = (
                    {name.split(".")[0] for name in names}
                    if isinstance(node, (ast.Import, ast.ImportFrom))
                    else set()
                )
                assert not top & {"torch", "tvm"}, path


@pytest.mark.parametrize(
    "name",
    ["compiler", *(f"compiler.{stage}" for stage in STAGES if (PACKAGE / stage / "__init__.py").exists())],
)
def test_exports_are_sorted_and_exist(name):
    module = importlib.import_module(name)
    exports = module.__all__
    # ruff's order: constants, classes, then the rest.
    key = lambda word: (0 if word.isupper() else 1 if word[:1].isupper() else 2, word)  # noqa: E731
    assert list(exports) == sorted(exports, key=key)
    for word in exports:
        assert hasattr(module, word), word


def commands():
    from typer.main import get_command

    from compiler.cli.app import app

    def walk(path, command):
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{path} {name}", child)

    return list(walk("kiln", get_command(app)))


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_flag_is_documented(path, command):
    assert command.help
    assert "xample" in command.help, f"{path} --help has no example"
    assert f"`{path}" in command.help or f"`{path.split()[0]} " in command.help
    for param in command.params:
        assert getattr(param, "help", None), f"{path}: {param.name} has no help"


def test_every_flag_is_in_the_docs():
    text = (PACKAGE.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for path, command in commands():
        assert f"`{path}" in text or path == "kiln", f"docs/cli.md lacks `{path}`"
        for param in command.params:
            for word in param.opts:
                if word.startswith("--"):
                    assert word in text, f"docs/cli.md lacks {word} of {path}"


def test_every_manifest_field_is_in_the_docs():
    import dataclasses

    from compiler import bundle

    text = (PACKAGE.parent / "docs" / "bundle.md").read_text(encoding="utf-8")
    for kind in (
        bundle.Manifest,
        bundle.TargetInfo,
        bundle.PassInfo,
        bundle.KernelInfo,
        bundle.CheckInfo,
        bundle.Golden,
        bundle.QuantizationInfo,
        bundle.Part,
    ):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text, f"docs/bundle.md lacks {kind.__name__}.{field.name}"


def test_no_file_and_no_function_grew_too_long():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
