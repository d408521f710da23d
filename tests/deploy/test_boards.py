"""Real networks on boards, under qemu, against this machine's own build of the same."""

from dataclasses import replace

import pytest

from benchmarks.boards import MODELS, compiled, difference
from compiler.target import load
from tests.conftest import needs

# What is measured by `python -m benchmarks.boards` for every pair, some are here. Networks in
# integers give the same bits everywhere.
PAIRS = [
    ("efficientnet_lite0-int8", ("rpi4", "riscv64"), 0),
    ("efficientnet_lite0", ("rpi2",), 1e-4),
    ("minilm", ("x86-64-v2",), 1e-4),
]


@pytest.mark.parametrize(("name", "boards", "allowed"), PAIRS)
def test_boards_compute_what_this_machine_does(tmp_path, name, boards, allowed):
    needs("ziglang", why="pip install ziglang")
    needs(*(load(board).toolchain.emulator[0] for board in boards), why="apt-get install qemu-user-static")
    # What it was calibrated with does not matter here; images take a minute.
    row = replace(MODELS[name], calibrate=None)
    here = compiled(row, "host", tmp_path)
    for board in boards:
        assert difference(row, board, here, tmp_path) <= allowed, board
