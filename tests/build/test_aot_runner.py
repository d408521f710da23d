"""The runner of an ahead-of-time library: one static program, on this machine and on boards under qemu."""

import subprocess
from functools import cache

import numpy as np
import pytest
import torch

from compiler.target import compatible, load
from tests.build.aot_nets import First, branches, built
from tests.conftest import needs

ZIG = "pip install ziglang"
SHAPE = (1, 3, 13, 11)


@pytest.fixture(scope="module")
def net():
    return branches(First)


def runner(net, folder, target):
    """Return a runner's path, with golden data beside it."""
    needs("ziglang", why=ZIG)
    made = built(net, (torch.randn(SHAPE),), folder, target)
    golden = folder / "golden"
    golden.mkdir()
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    np.save(golden / "input_0.npy", x)
    with torch.no_grad():
        np.save(golden / "output_0.npy", net(torch.from_numpy(x)).numpy())
    return made.runner


@pytest.fixture(scope="module")
def made(net, tmp_path_factory):
    """Return a function from a target's name to the path of its runner, built once."""
    return cache(lambda name: runner(net, tmp_path_factory.mktemp(name), load(name)))


@pytest.fixture(scope="module")
def here(made):
    return made("host")


def ran(*words):
    done = subprocess.run(
        [str(each) for each in words], capture_output=True, text=True, check=False, timeout=300
    )
    # qemu says which features of a CPU it cannot play.
    errors = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("qemu-")]
    return done.returncode, done.stdout, "".join(errors)


def test_it_needs_no_library(here):
    said = "".join(ran("ldd", here)[1:])
    assert "not a dynamic executable" in said or "statically linked" in said


def test_it_verifies_itself(here):
    code, out, err = ran(here)
    assert (code, err) == (0, "")
    assert ": right, off by " in out
    assert ran(here, "--verify", "--threads", "1")[0] == 0


def test_a_wrong_output_is_told(here, tmp_path):
    x = np.load(here.parent / "golden" / "input_0.npy")
    np.save(tmp_path / "input_0.npy", x)
    wanted = np.load(here.parent / "golden" / "output_0.npy")
    wanted[0, 3] += 0.1
    np.save(tmp_path / "output_0.npy", wanted)
    code, out, _ = ran(here, "--golden", tmp_path, "--verify")
    assert code == 1
    assert "WRONG" in out


def test_times_and_where_they_go(here):
    code, out, err = ran(here, "--bench", "20", "--threads", "2", "--profile")
    assert (code, err) == (0, "")
    first, *rest = out.splitlines()
    assert first.startswith("20 runs on 2 threads: median ")
    assert "peak memory" in first
    assert any("conv2d" in line for line in rest)
    assert rest[-1].endswith(" us")


def test_weights_that_were_changed_are_told(here, tmp_path):
    weights = bytearray((here.parent / "net.weights").read_bytes())
    weights[100] ^= 1
    (tmp_path / "changed.weights").write_bytes(weights)
    code, _, err = ran(here, "--weights", tmp_path / "changed.weights", "--verify")
    assert (code, err) == (
        1,
        "error: the weights were changed after the model was compiled: their SHA-256 differs\n",
    )
    code, _, err = ran(here, "--weights", tmp_path / "none")
    assert code == 1
    assert "cannot read the weights" in err


def test_what_each_kernel_makes(here, tmp_path):
    assert ran(here, "--trace", tmp_path) == (0, "", "")
    made = sorted(tmp_path.iterdir(), key=lambda path: int(path.name.partition("_")[0]))
    assert [path.name for path in made] == [f"{number}_0.npy" for number in range(len(made))]
    wanted = np.load(here.parent / "golden" / "output_0.npy")
    np.testing.assert_allclose(np.load(made[-1]), wanted, rtol=1e-4, atol=1e-6)


def test_nothing_is_wrong_with_its_memory(made):
    """Runs on 3 threads under valgrind: no leak, nothing read before it was written or beyond its end."""
    needs("valgrind", why="apt-get install valgrind")
    # valgrind knows no AVX-512.
    name = "x86-64-v3" if load("host").arch == "x86_64" else "host"
    if why := compatible(load(name)):
        pytest.skip(why)
    flags = ["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]
    code, _, err = ran("valgrind", "-q", *flags, made(name), "--verify", "--bench", "10", "--threads", "3")
    assert code == 0, err


def test_files_of_ones_own(here, net, tmp_path):
    x = np.random.default_rng(7).standard_normal(SHAPE, np.float32)
    np.save(tmp_path / "x.npy", x)
    assert ran(here, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy") == (0, "", "")
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--golden", "nowhere"], "error: cannot read 'nowhere/input_0.npy': No such file or directory"),
        (["--what"], "error: "),
        (["--threads", "900"], "error: expected 1 to 64 threads, got 900"),
        (["--output", "y.npy"], "error: expected a file for each input and output"),
    ],
)
def test_bad_words_get_a_line(here, words, line):
    code, _, err = ran(here, *words)
    assert code in (1, 2)
    assert err.splitlines()[-1].startswith(line)


@pytest.mark.parametrize("make", [lambda x: x[:, :2], lambda x: x.astype(np.float64), np.asfortranarray])
def test_files_that_do_not_fit_are_refused(here, tmp_path, make):
    np.save(tmp_path / "x.npy", make(np.zeros(SHAPE, np.float32) + np.arange(11, dtype=np.float32)))
    code, _, err = ran(here, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert code == 1
    assert "does not fit: expected float32 (1, 3, 13, 11) in C order" in err
    (tmp_path / "x.npy").write_bytes(b"nothing of NumPy's")
    assert (
        "expected a .npy file" in ran(here, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")[2]
    )


@pytest.mark.parametrize("board", ["rpi4", "rpi2", "riscv64", "x86-64-v3"])
def test_boards_compute_the_same(made, board):
    target = load(board)
    emulator = target.toolchain.emulator
    needs("ziglang", why=ZIG)
    needs(emulator[0], why="apt-get install qemu-user-static")
    code, out, err = ran(*emulator, made(board), "--threads", "2")
    assert (code, err) == (0, ""), out
    assert ": right, off by " in out


@pytest.mark.parametrize(
    ("board", "emulator", "lacks"),
    [
        ("rpi5", ["qemu-aarch64-static", "-cpu", "cortex-a72"], "dotprod"),
        ("x86-64-v3", ["qemu-x86_64-static", "-cpu", "Nehalem"], "avx"),
    ],
)
def test_a_cpu_without_the_features_is_told(made, board, emulator, lacks):
    needs("ziglang", why=ZIG)
    needs(emulator[0], why="apt-get install qemu-user-static")
    code, _, err = ran(*emulator, made(board))
    assert code == 1
    assert err.startswith(f"error: the code is for {load(board).cpu}: this CPU lacks '{lacks}'")
