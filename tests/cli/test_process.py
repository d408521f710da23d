"""The real command in processes of its own: the whole way, signals, pipes and start-up."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

KILN = [sys.executable, "-m", "compiler.cli"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

SLOW = """
import sys
from pathlib import Path
from compiler.cli import main
from compiler.support import files
import compiler.bundle, compiler.cli.info

def work(*args):
    with files.private_folder() as folder, files.atomic_path(Path("out.kiln")) as temporary:
        temporary.write_text("half")
        (folder / "object.o").write_text("half")
        print(folder, flush=True)
        {wait}
        temporary.write_text("whole")
    return []

compiler.bundle.read = lambda path: type("Bundle", (), dict(manifest=None))
compiler.cli.info._facts = work
sys.exit(main())
"""
WAIT_IN_PYTHON = "import time; [time.sleep(0.01) for _ in range(10_000)]"
# One long call that does not come back to Python, as code generation is.
WAIT_OUTSIDE = "import ctypes; libc = ctypes.CDLL(None); [libc.usleep(100_000_000)] "
WRAPPED = """
        try:
            import time; [time.sleep(0.01) for _ in range(10_000)]
        except BaseException as error:
            raise RuntimeError("C++ makes errors of its own") from error
"""


def run(*words, cwd, **kwargs):
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run([*KILN, *words], cwd=cwd, env=environment, capture_output=True, text=True, **kwargs)


def start(wait, cwd):
    """Start a verb that waits with half-written files; return the process once it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.replace("{wait}", wait), "info", "x.kiln"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    folder = process.stdout.readline().strip()
    assert os.path.isdir(folder)
    return process, folder, guard


@pytest.mark.parametrize(
    "wait", [WAIT_IN_PYTHON, WAIT_OUTSIDE, WRAPPED], ids=["python", "outside", "wrapped"]
)
@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")], ids=["int", "term"]
)
def test_a_signal_leaves_nothing_half_written(tmp_path, wait, number, word):
    process, folder, guard = start(wait, tmp_path)
    process.send_signal(number)
    _, err = process.communicate()
    guard.cancel()
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == word
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert not os.path.exists(folder)


def test_compile_run_verify_and_info(tmp_path):
    made = run("compile", "tests.models:nested", "--target", "host", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("wrote nested-host.kiln (")
    names = [line.split()[0] for line in made.stderr.splitlines() if line.endswith(" s")]
    assert names == ["import", "optimize", "schedule", "build", "check", "golden", "bundle"]
    left, right = np.random.rand(2, 2, 8).astype(np.float32)
    np.savez(tmp_path / "x.npz", left=left, right=right)
    ran = run("run", "nested-host.kiln", "--input", "x.npz", "--output", "y.npz", "-q", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    with np.load(tmp_path / "y.npz") as outputs:
        assert outputs.files == ["sum", "parts_0", "parts_1"]
        np.testing.assert_array_equal(outputs["parts_0"], left * 2)
        np.testing.assert_array_equal(outputs["parts_1"], np.maximum(outputs["sum"], 0))
    verified = run("verify", "nested-host.kiln", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("ok ") == 3
    wrong = run("run", "nested-host.kiln", "-i", "left=x.npz", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1] == "error: input 'right' is missing (inputs: left, right)"


def test_a_reader_that_leaves_is_no_error(tmp_path):
    from tests.bundle.parts import write_sample

    write_sample(tmp_path / "a.kiln")
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run(
        [*KILN, "info", "a.kiln"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert process.stderr == ""
    assert process.returncode == 141


def test_a_full_disk_on_stdout(tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*KILN, "targets"],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    assert process.returncode == 2
    assert process.stderr == "error: No space left on device\n"


FINISHES = """
        import time
        try:
            Path("ready").write_text("")
            [time.sleep(0.01) for _ in range(10_000)]
        finally:
            from compiler.cli.signals import finishing
            with finishing():
                time.sleep(2.5)
                Path("finished").write_text("yes")
"""


def test_who_has_something_to_write_after_a_signal_has_the_time(tmp_path):
    process, folder, guard = start(FINISHES, tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    guard.cancel()
    assert process.returncode == 130
    assert err.splitlines() == ["interrupted"]
    assert (tmp_path / "finished").read_text() == "yes"
    assert not os.path.exists(folder)
    assert not (tmp_path / "out.kiln").exists()


def test_a_second_signal_does_not_wait_for_it(tmp_path):
    process, folder, guard = start(FINISHES, tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    guard.cancel()
    assert process.returncode == 130
    assert not (tmp_path / "finished").exists()
    assert not os.path.exists(folder)
