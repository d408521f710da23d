"""The ahead-of-time library: called from C's side, it computes what PyTorch does, with nothing but libc."""

import ctypes
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from compiler import frontend
from compiler.build.aot import write_c
from compiler.build.c_source import identifiers
from compiler.build.program import program_of
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.support.errors import BuildError
from compiler.target import load
from tests.build.aot_nets import branches, built, scheduled

ALIGNMENT = 64


class Options(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_int), ("memory", ctypes.c_void_p), ("memory_bytes", ctypes.c_size_t),
        ("weights", ctypes.c_char_p),
    ]  # fmt: skip


class Loaded:
    """A library as C sees it."""

    def __init__(self, path, program):
        self.library, self.program = ctypes.CDLL(str(path)), program
        self.library.net_error.restype = ctypes.c_char_p
        self.library.net_error.argtypes = [ctypes.c_void_p]
        self.library.net_memory_bytes.restype = ctypes.c_size_t

    def create(self, threads=1, memory=None, size=0):
        handle, options = ctypes.c_void_p(), Options(threads, memory, size)
        failed = self.library.net_create(ctypes.byref(handle), ctypes.byref(options))
        assert bool(failed) == (not handle)
        return handle

    def error(self, handle=None):
        return self.library.net_error(handle).decode()

    def run(self, handle, inputs, off=0):
        """Run on arrays that begin `off` bytes behind an aligned address, as do the outputs."""
        inputs = [placed(each, off) for each in inputs]
        outputs = [placed(np.zeros(each.shape, each.dtype), off) for each in self.program.outputs]
        pointers = [
            (ctypes.c_void_p * len(each))(*(a.ctypes.data for a in each)) for each in (inputs, outputs)
        ]
        assert self.library.net_run_arrays(handle, *pointers) == 0, self.error(handle)
        return outputs


def placed(array, off):
    room = np.zeros(array.nbytes + 2 * ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT + off
    found = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


@pytest.fixture(scope="module")
def net():
    return branches()


@pytest.fixture(scope="module")
def library(net, tmp_path_factory):
    return built(net, (torch.randn(1, 3, 13, 11),), tmp_path_factory.mktemp("aot"))


@pytest.fixture(scope="module")
def loaded(library):
    return Loaded(library.shared, library.program)


def expected(net, x):
    with torch.no_grad():
        return [each.numpy() for each in net(torch.from_numpy(x))]


def near(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        # Sums of some hundred floats in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("off", [0, 4])
def test_it_computes_what_pytorch_does(net, loaded, threads, off):
    handle = loaded.create(threads)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((1, 3, 13, 11), np.float32)
        near(loaded.run(handle, [x], off), expected(net, x))
    loaded.library.net_destroy(handle)


def test_memory_of_the_caller_is_all_it_needs(net, loaded):
    size = loaded.library.net_memory_bytes(2)
    assert not loaded.create(2, 1, size - 1)
    assert loaded.error() == f"expected {size} bytes of memory for 2 threads, got {size - 1}"
    guard = 64
    memory = np.full(size + guard, 0xAB, np.uint8)
    handle = loaded.create(2, memory.ctypes.data, size)
    x = np.ones((1, 3, 13, 11), np.float32)
    near(loaded.run(handle, [x]), expected(net, x))
    loaded.library.net_destroy(handle)
    assert (memory[size:] == 0xAB).all()


def test_too_many_threads_are_refused(loaded):
    assert not loaded.create(1000)
    assert loaded.error() == "expected 1 to 64 threads, got 1000"


def test_instances_in_several_threads_give_identical_results(loaded):
    inputs = [np.random.default_rng(n).standard_normal((1, 3, 13, 11), np.float32) for n in range(8)]
    alone = loaded.create(2)
    wanted = [loaded.run(alone, [x]) for x in inputs]

    def work(number):
        handle = loaded.create(2)
        for _ in range(50):
            got = loaded.run(handle, [inputs[number]])
            for one, other in zip(got, wanted[number], strict=True):
                np.testing.assert_array_equal(one, other)
        loaded.library.net_destroy(handle)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    loaded.library.net_destroy(alone)


def test_it_needs_only_the_c_library_and_shows_only_its_interface(library):
    needed = subprocess.run(["ldd", library.shared], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0].rpartition("/")[2].split(".so")[0] for line in needed.splitlines()}
    assert names <= {"linux-vdso", "libc", "libm", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64"}
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", library.shared], capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[-1] for line in shown.splitlines()} == {
        f"net_{each}"
        for each in (
            "create", "run", "run_arrays", "run_watched", "check_weights", "threads", "error", "destroy",
            "set_sizes", "shape", "sizes", "size_count",
            "memory_bytes", "inputs", "outputs", "steps", "input_count", "output_count", "step_count",
        )
    }  # fmt: skip


def test_a_header_that_c_and_cplusplus_understand(library, tmp_path):
    program = tmp_path / "use.c"
    program.write_text(
        '#include "net.h"\n'
        "int main(void) { float x[3 * 13 * 11], p[10], y[16 * 13 * 11]; net *model = NULL;\n"
        "  return sizeof x + sizeof p + sizeof y ? NET_ARENA_BYTES == 0 : net_run(model, x, p, y); }\n"
    )
    for words in (["cc", "-std=c99"], ["c++", "-x", "c++"]):
        subprocess.run(
            [
                *words,
                "-Wall",
                "-Wextra",
                "-Werror",
                f"-I{library.header.parent}",
                str(program),
                "-c",
                "-o",
                "/dev/null",
            ],
            check=True,
        )


def test_weights_inside_need_no_file(net, tmp_path):
    made = built(net, (torch.randn(1, 3, 13, 11),), tmp_path, inside=True)
    assert made.weights is None
    assert not list(tmp_path.glob("*.weights"))
    loaded = Loaded(made.shared, made.program)
    handle = loaded.create()
    x = np.ones((1, 3, 13, 11), np.float32)
    near(loaded.run(handle, [x]), expected(net, x))
    assert loaded.library.net_check_weights(handle) == 0


def test_without_threads_it_knows_no_pthread(net, tmp_path):
    made = built(net, (torch.randn(1, 3, 13, 11),), tmp_path, threads=False)
    names = subprocess.run(["nm", "-D", made.shared], capture_output=True, text=True, check=True).stdout
    assert "pthread" not in names
    loaded = Loaded(made.shared, made.program)
    x = np.ones((1, 3, 13, 11), np.float32)
    near(loaded.run(loaded.create(), [x]), expected(net, x))
    assert not loaded.create(2)
    assert loaded.error() == "expected 1 thread of a library without threads, got 2"


WARNINGS = "-Wall -Wextra -Werror -Wno-maybe-uninitialized"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.parametrize("flags", [WARNINGS, SANITIZERS])
def test_c_for_a_compiler_of_ones_own(net, tmp_path, flags):
    """Built by make, without a warning or with all sanitizers, and run on golden data."""
    mod, target, names = scheduled(net, (torch.randn(1, 3, 13, 11),))
    made = write_c(mod, target, tmp_path, names)
    assert {path.name for path in made.files} >= {"net.h", "net.c", "net_kernels.c", "Makefile"}
    golden = tmp_path / "golden"
    golden.mkdir()
    x = np.random.default_rng(0).standard_normal((1, 3, 13, 11), np.float32)
    np.save(golden / "input_0.npy", x)
    for number, each in enumerate(expected(net, x)):
        np.save(golden / f"output_{number}.npy", each)
    subprocess.run(["make", "-s", "-C", tmp_path, f"CFLAGS=-O1 {flags}"], check=True)
    words = [tmp_path / "net-run", "--verify", "--bench", "20"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": right, off by ") == 2


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["x", "input", "x"], ["x", "input", "x_1"]),
        (["a.b", "a_b", "int", "3d", "", "model"], ["a_b", "a_b_1", "_int", "_3d", "_", "_model"]),
        (["größe", "x_1", "x", "x"], ["gr__e", "x_1", "x", "x_2"]),
    ],
)
def test_names_for_c(names, wanted):
    assert identifiers(names) == wanted


def test_a_chain_of_reshapes_and_a_passed_input(tmp_path):
    class Passes(nn.Module):
        def forward(self, x):
            return x, x.reshape(4, 6) * 2

    made = built(Passes(), (torch.randn(2, 3, 4),), tmp_path)
    loaded = Loaded(made.shared, made.program)
    handle = loaded.create()
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    first, second = loaded.run(handle, [x])
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, 2 * x.reshape(4, 6))


def test_sizes_without_a_greatest_are_refused():
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    model, target = frontend.load(program), load("host")
    mod, _ = schedule(optimize(model.mod, target)[0], target)
    with pytest.raises(BuildError, match="has no greatest value, for which memory would be planned"):
        program_of(mod, {})
