"""What every test shares: seeds, one thread, and tools that may be missing on a user's machine."""

import importlib.util
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

# Before torch or TVM start a thread pool: tests run beside one another on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TVM_NUM_THREADS", "1")
# Models come from installed packages and never from a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

SEED = int(os.environ.get("KILN_TEST_SEED", "0"))


def in_ci() -> bool:
    """Tell whether the tests run in continuous integration, where nothing may be missing."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def needs(*names: str, why: str = "") -> None:
    """Skip the test if a command or Python package in `names` is missing; fail it instead in CI.

    A name with a slash is a file. `why` says how to get it.
    """
    for name in names:
        found = os.path.exists(name) if "/" in name else shutil.which(name) or _importable(name)
        if not found:
            absent(f"needs '{name}'" + (f": {why}" if why else ""))


def absent(reason: str) -> None:
    """Skip the test for `reason` on a user's machine; fail it in CI, where a skip would hide a loss."""
    if in_ci():
        pytest.fail(f"{reason} (CI must have it)", pytrace=False)
    pytest.skip(reason)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def pytest_report_header() -> str:
    """Say what a failure needs to be repeated."""
    return f"seed: {SEED} (KILN_TEST_SEED), CI: {in_ci()}"


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "zoo: a model of the zoo that only `make zoo` compiles")


@pytest.fixture
def kiln(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; return its exit code, stdout and stderr."""
    from compiler.cli.main import main

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return run


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same seed, whatever ran before it."""
    random.seed(SEED)
    try:
        import numpy as np
    except ModuleNotFoundError:
        return
    np.random.seed(SEED)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.manual_seed(SEED)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `ssh` that forwards ports of this machine; return the file of what it was asked."""
    program = tmp_path / "ssh"
    program.write_text(f"#!{sys.executable}\n{(Path(__file__).parent / 'fake_ssh.py').read_text()}")
    program.chmod(program.stat().st_mode | 0o100)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH_LOG", str(tmp_path / "asked"))
    return tmp_path / "asked"
