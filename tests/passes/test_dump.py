import pytest
import tvm
from tvm import relax

from compiler.passes import dump, optimize
from compiler.support.errors import UsageError
from compiler.target import load
from tests.passes.graphs import const, graph

R = relax.op


def _network():
    weight, matrix = const(8, 3, 3, 3), const(8, 5)
    return graph(
        lambda emit, x: R.matmul(emit(R.mean(emit(R.nn.relu(emit(R.nn.conv2d(x, weight)))), [2, 3])), matrix),
        x=(1, 3, 8, 8),
    )


@pytest.mark.parametrize("target", ["x86-64-v3", "rtx-4090"])
def test_every_pass_can_be_read_back(tmp_path, target):
    mod, records = optimize(_network(), load(target), dump=tmp_path)
    files = sorted(tmp_path.glob("*.py"))
    assert [file.stem[3:] for file in files] == ["import", *(record.name for record in records)]
    assert [int(file.stem[:2]) for file in files] == list(range(len(files)))
    tvm.ir.assert_structural_equal(dump.read(files[0]), _network())
    tvm.ir.assert_structural_equal(dump.read(files[-1]), mod)
    for file in files:
        relax.analysis.well_formed(dump.read(file))


def test_a_weight_is_stored_once(tmp_path):
    for name in ("a.py", "b.py"):
        dump.write(_network(), tmp_path / name)
    assert len(list((tmp_path / "constants").iterdir())) == 2


def test_errors_name_the_file(tmp_path):
    dump.write(_network(), tmp_path / "a.py")
    for constant in (tmp_path / "constants").iterdir():
        constant.unlink()
    with pytest.raises(UsageError, match="constants"):
        dump.read(tmp_path / "a.py")
    with pytest.raises(UsageError, match=r"cannot read the IR dump .*nowhere\.py"):
        dump.read(tmp_path / "nowhere.py")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the IR"):
        dump.write(_network(), tmp_path / "file" / "a.py")
