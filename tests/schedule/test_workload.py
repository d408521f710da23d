"""The name of a kernel's work depends on the work alone."""

import subprocess
import sys

import tvm
from tvm import te

from compiler.schedule.workload import workload_of

RELU = """
import sys
from tests.schedule.test_workload import relu
from compiler.schedule.workload import workload_of
print(workload_of(relu()))
"""


def relu(rows=3, names=("x", "y"), dtype="float32", least=0.0):
    x = te.placeholder((rows, 5), dtype, names[0])
    y = te.compute((rows, 5), lambda i, j: te.max(x[i, j], tvm.tirx.const(least, dtype)), name="relu")
    z = te.compute((rows, 5), lambda a, b: y[a, b] + x[a, b], name="sum")
    return te.create_prim_func([x, z]).with_attr("global_symbol", names[1])


def test_it_can_be_read():
    assert workload_of(relu()).split("#")[0] == "sum 3x5 -> 3x5 float32 "
    rows = tvm.tirx.Var("n", "int64")
    assert workload_of(relu(rows)).startswith("sum nx5 -> nx5 float32 #")


def test_names_do_not_matter():
    assert workload_of(relu(names=("a", "b"))) == workload_of(relu())
    assert workload_of(tvm.ir.load_json(tvm.ir.save_json(relu()))) == workload_of(relu())


def test_all_else_does():
    variants = [relu(), relu(4), relu(dtype="float16"), relu(least=1.0)]
    assert len({workload_of(each) for each in variants}) == len(variants)


def test_another_process_finds_the_same():
    found = subprocess.run([sys.executable, "-c", RELU], capture_output=True, text=True, check=True).stdout
    assert found.strip() == workload_of(relu())
