"""Real networks on boards, under qemu, against this machine's own build of the same."""

from dataclasses import replace

import pytest

from benchmarks.boards import MODELS, compiled, difference
from compiler.target import load
from tests.conftest import needs

# What is measured by `python -m benchmarks.boards` for every pair, one network a board is here. Networks in
# integers give the same bits everywhere.
PAIRS = [
    ("rpi4", "resnet18-int8", 0),
    ("rpi2", "efficientnet_lite0", 1e-4),
    ("riscv64", "mobilenet_v2-int8", 0),
    ("x86-64-v2", "minilm", 1e-4),
]


@pytest.mark.parametrize(("board", "name", "allowed"), PAIRS)
def test_boards_compute_what_this_machine_does(tmp_path, board, name, allowed):
    needs("ziglang", why="pip install ziglang")
    needs(load(board).toolchain.emulator[0], why="apt-get install qemu-user-static")
    # What it was calibrated with does not matter here; images take a minute.
    row = replace(MODELS[name], calibrate=None)
    assert difference(row, board, compiled(row, "host", tmp_path), tmp_path) <= allowed
