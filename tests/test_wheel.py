"""The wheel: it carries the data folders, and compiles where no checkout is near."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from compiler.target import names
from tests.conftest import needs

ROOT = Path(__file__).resolve().parent.parent

MODEL = """
import torch

def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    return net.eval(), (torch.randn(1, 3, 8, 8),)
"""


def call(*words, cwd):
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    needs("build", "setuptools", why="pip install 'kiln-compiler[dev]'")
    copy = tmp_path_factory.mktemp("wheel") / "checkout"
    copy.mkdir()
    for name in ("compiler", "targets", "tuning_logs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy / "out", cwd=copy)
    return next((copy / "out").glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel; what it depends on is read from this environment, not downloaded."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # Files that end in .pth are only followed in an environment's own folder, so the editable Kiln that
    # may be installed here stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    call(*pip, "--force-reinstall", "--ignore-installed", wheel, cwd=folder)
    return folder, python


def test_sources_and_wheel_carry_the_data(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("targets", "tuning_logs"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                assert f"compiler/_data/{path.relative_to(ROOT)}" in inside
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "compiler").rglob("*.py")}
    assert modules - inside == set()


def test_the_installed_package_is_the_wheels(environment):
    folder, python = environment
    assert str(folder) in call(python, "-c", "import compiler; print(compiler.__file__)", cwd=folder)


def test_the_wheel_lists_its_targets(environment):
    folder, python = environment
    lines = call(python.parent / "kiln", "targets", cwd=folder).splitlines()
    assert [line.split()[0] for line in lines[1:]] == names()


def test_the_wheel_compiles(environment):
    folder, python = environment
    (folder / "tiny.py").write_text(MODEL)
    kiln = python.parent / "kiln"
    call(kiln, "compile", "tiny:make", "--target", "host", "-o", "tiny.kiln", cwd=folder)
    assert "ok" in call(kiln, "verify", "tiny.kiln", cwd=folder)
