"""The serialized modules: what TVM wrote is read back to the byte, and nothing else is accepted."""

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from compiler.build.device_code import (
    MACHINE_CODE,
    read_device_module,
    read_library,
    write_module,
    write_tree,
)
from compiler.build.lower import lower
from compiler.support.errors import InternalError
from compiler.target import load as load_target
from tests.build.networks import conv_net

KINDS = {"jetson-orin": ("cuda", "cuda"), "mali-g610": ("opencl", "cl"), "apple-m1": ("metal", "metal")}


def packed(name):
    target = load_target(name)
    executable = lower(conv_net().scheduled(target), target)
    return tvm.runtime._ffi_api.ModulePackImportsToTensor(executable.mod.imports[0]).numpy().tobytes()


@pytest.fixture(scope="module")
def libraries():
    return {name: packed(name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_library_is_read_to_the_byte(libraries, name):
    data = libraries[name]
    binary = read_library(data)
    assert [kind for kind, _ in binary.modules] == [MACHINE_CODE, KINDS[name][0]]
    again = write_tree(binary.firsts, binary.children)
    again += b"".join(write_module(kind, module) for kind, module in binary.modules)
    assert len(again).to_bytes(8, "little") + again == data


@pytest.mark.parametrize("name", KINDS)
def test_device_module_is_read_to_the_byte(libraries, name):
    kind, data = read_library(libraries[name]).modules[1]
    module = read_device_module(kind, data)
    assert module.to_bytes() == data
    assert module.format == KINDS[name][1]
    assert len(module.kernels) >= 5
    for kernel in module.kernels:
        assert f"{kernel.name}(" in module.source
        assert set(kernel.arguments) == {"handle"}
        assert "threadIdx.x" in kernel.launch_tags


def test_new_code_leaves_the_function_table(libraries):
    kind, data = read_library(libraries["mali-g610"]).modules[1]
    module = read_device_module(kind, data)
    other = read_device_module(kind, module.with_code("spirv", b"words").to_bytes())
    assert (other.format, other.source, other.kernels) == ("spirv", "words", module.kernels)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_library_is_refused(libraries, cut):
    data = libraries["mali-g610"]
    with pytest.raises(InternalError, match="serialized TVM module"):
        read_library(data[: int(cut * len(data))])


def test_a_root_is_put_before_all_modules():
    tree = read_library(
        (lambda body: len(body).to_bytes(8, "little") + body)(
            write_tree((0, 1, 1), (1,)) + write_module(MACHINE_CODE, None) + write_module("cuda", b"x")
        )
    )
    assert tree.under_root() == ((0, 1, 2, 2), (1, 2))
