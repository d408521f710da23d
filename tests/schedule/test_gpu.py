"""Every kernel runs in threads on every GPU, within its limits, and computes the same as before."""

import dataclasses

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir import Schedule
from tvm.script import tirx as T

from compiler.build.lower import lower
from compiler.passes.pipeline import dispatch_passes
from compiler.schedule import gpu_bind
from compiler.schedule.gpu import schedule_gpu, schedule_kernel
from compiler.schedule.gpu_limits import Launch, fits, launches, lower_kernel
from compiler.support.errors import BuildError
from compiler.target import load as load_target

op = relax.op
GPUS = ["jetson-orin", "rtx-4090", "h100", "mali-g610", "adreno-740", "apple-m1"]


def tensor(*shape, dtype="float32"):
    return relax.TensorType(shape, dtype)


INDICES = tensor(2, 100, dtype="int64")
IMAGE = tensor(1, 8, 20, 20)
OPERATORS = {
    "matmul": ([tensor(8, 128, 64), tensor(8, 64, 128)], op.matmul),
    "matmul, one row": ([tensor(1, 512), tensor(512, 1000)], op.matmul),
    "conv2d": ([IMAGE, tensor(16, 8, 3, 3)], lambda x, w: op.nn.conv2d(x, w, padding=1)),
    "conv2d, depthwise": ([IMAGE, tensor(8, 1, 3, 3)], lambda x, w: op.nn.conv2d(x, w, groups=8)),
    "conv1d": ([tensor(1, 8, 20), tensor(8, 8, 3)], op.nn.conv1d),
    "conv2d_transpose": ([IMAGE, tensor(8, 8, 3, 3)], lambda x, w: op.nn.conv2d_transpose(x, w, strides=2)),
    "softmax": ([tensor(4, 100)], lambda x: op.nn.softmax(x, 1)),
    "group_norm": ([IMAGE, tensor(8), tensor(8)], lambda x, g, b: op.nn.group_norm(x, g, b, 2, 1, [2, 3])),
    "sum": ([tensor(4, 30, 100)], lambda x: op.sum(x, [1])),
    "max of all": ([tensor(4, 100)], op.max),
    "argmax": ([tensor(4, 100)], lambda x: op.argmax(x, 1)),
    "adaptive_avg_pool2d": ([IMAGE], lambda x: op.nn.adaptive_avg_pool2d(x, (7, 7))),
    "transpose": ([tensor(40, 60)], op.permute_dims),
    "concat": ([IMAGE, IMAGE], lambda x, y: op.concat([x, y], 1)),
    "where": ([tensor(4, 1, dtype="bool"), tensor(4, 64), tensor()], op.where),
    "scalar": ([tensor()], lambda x: op.add(x, relax.const(1.0))),
    "resize2d": ([IMAGE], lambda x: op.image.resize2d(x, (40, 40))),
    "cumsum": ([tensor(4, 100)], lambda x: op.cumsum(x, 1)),
    "argsort": ([tensor(4, 100)], lambda x: op.argsort(x, 1)),
    "topk": ([tensor(4, 100)], lambda x: op.topk(x, 5, 1)),
    "scatter": ([tensor(4, 100), INDICES, tensor(2, 100)], op.scatter_elements),
}


def module(types, make, target):
    """Return the kernels of one operator, as the passes leave them for `target`."""
    inputs = [relax.Var(f"x{i}", kind) for i, kind in enumerate(types)]
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        with builder.dataflow():
            output = builder.emit_output(builder.emit(make(*inputs)))
        builder.emit_func_output(output)
    mod = builder.get()
    with target.tvm_target():
        for _, step in dispatch_passes():
            mod = step(mod)
        return relax.transform.LegalizeOps()(mod)


@pytest.mark.parametrize("name", ["jetson-orin", "mali-g610", "apple-m1"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_no_operator_is_left_without_threads(name, operator):
    target = load_target(name)
    mod, records = schedule_gpu(module(*OPERATORS[operator], target), target)
    kernels = {
        variable.name_hint: function
        for variable, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    assert sorted(kernels) == sorted(record.kernel for record in records)
    for kernel in kernels.values():
        assert fits(kernel, target)
    lower(mod, target)


@pytest.mark.parametrize("name", GPUS)
def test_matrix_products_have_a_rule_on_every_gpu(name):
    target = load_target(name)
    for operator in ("matmul", "conv2d"):
        _, records = schedule_gpu(module(*OPERATORS[operator], target), target)
        assert [record.rule for record in records] == ["dlight.Matmul"]


def test_dynamic_batch_is_bound():
    target, batch = load_target("jetson-orin"), tirx.Var("n", "int64")
    mod, records = schedule_gpu(module([tensor(batch, 64)], lambda x: op.nn.softmax(x, 1), target), target)
    assert records[0].rule.startswith("dlight.")
    lower(mod, target)


def on_the_cpu(function):
    """Return `function` with its threads taken one after the other: what one kernel of `bind` computes."""

    def change(loop):
        if loop.kind != tirx.ForKind.THREAD_BINDING:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    body = tvm_ffi.structural_map(function.body, [(tirx.For, change)])
    return tvm.compile(tvm.IRModule({"main": function.with_body(body)}), tvm.target.Target("llvm"))


BOUND = ["softmax", "sum", "max of all", "adaptive_avg_pool2d", "concat", "scalar", "matmul", "where"]


@pytest.mark.parametrize("operator", BOUND)
def test_the_binder_changes_no_number(operator):
    target = load_target("jetson-orin")
    mod = module(*OPERATORS[operator], target)
    ((_, function),) = [pair for pair in mod.functions_items() if isinstance(pair[1], tirx.PrimFunc)]
    function = function.with_attr("global_symbol", "main")
    bound = gpu_bind.apply(function, target).mod["main"]
    assert gpu_bind.has_threads(bound.body)
    assert fits(bound, target)
    arrays = []
    for parameter in function.params:
        values = np.asarray(np.random.rand(*map(int, parameter.shape)))
        dtype = str(parameter.dtype)
        arrays.append((values > 0.5 if dtype == "bool" else values).astype(dtype))
    results = []
    for program in (on_the_cpu(function), on_the_cpu(bound)):
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        program["main"](*tensors)
        results.append(tensors[-1].numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)
    assert not np.array_equal(results[0], arrays[-1])


@T.prim_func(private=True, s_tir=True)
def prefix_sum(a: T.Buffer((1000,), "float32"), b: T.Buffer((1000,), "float32")):
    with T.sblock("scan"):
        T.reads(a[0:1000])
        T.writes(b[0:1000])
        b[0] = a[0]
        for i in range(999):
            b[i + 1] = b[i] + a[i + 1]


@T.prim_func(private=True, s_tir=True)
def parallel_loop(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):
    with T.sblock("double"):
        T.reads(a[0:64])
        T.writes(b[0:64])
        for i in T.parallel(64):
            b[i] = a[i] * T.float32(2)


@pytest.mark.parametrize(("function", "numpy"), [(prefix_sum, np.cumsum), (parallel_loop, lambda a: 2 * a)])
@pytest.mark.parametrize("name", ["jetson-orin", "mali-g610", "apple-m1"])
def test_loops_that_depend_on_one_another_take_one_thread(name, function, numpy):
    target = load_target(name)
    scheduled, _ = schedule_kernel(function, target, "kernel")
    assert launches(lower_kernel(scheduled, target))[0].block == (1, 1, 1)
    a = np.random.rand(int(function.params[0].shape[0])).astype("float32")
    tensors = [tvm.runtime.tensor(a), tvm.runtime.tensor(np.zeros_like(a))]
    on_the_cpu(scheduled.with_attr("global_symbol", "main"))["main"](*tensors)
    np.testing.assert_allclose(tensors[1].numpy(), numpy(a), rtol=1e-4)


@T.prim_func(private=True, s_tir=True)
def copy(a: T.Buffer((4096, 4096), "float32"), b: T.Buffer((4096, 4096), "float32")):
    for i, j in T.grid(4096, 4096):
        with T.sblock("copy"):
            x, y = T.axis.remap("SS", [i, j])
            b[x, y] = a[x, y]


def test_limits_are_kept():
    target = load_target("mali-g610")  # at most 512 threads and 32 KiB in a block
    assert not fits(copy, target)

    def bound(threads, shared=0, axis="blockIdx.x", device=target):
        sch = Schedule(copy)
        i, j = sch.get_loops(sch.get_sblock("copy"))
        outer, inner = sch.split(j, [None, threads])
        sch.bind(i, axis)
        sch.bind(inner, "threadIdx.x")
        if shared:
            cached = sch.cache_read(sch.get_sblock("copy"), 0, "shared")
            sch.compute_at(cached, i if shared > threads else outer)
        return fits(sch.mod["main"], device)

    assert bound(512)
    assert not bound(1024)
    assert bound(512, shared=512)
    assert bound(512, shared=4096)  # 16 KiB
    assert not bound(512, shared=4096, device=limited(target, max_shared_memory_per_block=8192))
    assert bound(512, axis="blockIdx.y", device=limited(target, max_grid=(100, 4096, 1)))
    assert not bound(512, axis="blockIdx.y", device=limited(target, max_grid=(4096, 4095, 1)))


def limited(target, **limits):
    return dataclasses.replace(target, accelerator=dataclasses.replace(target.accelerator, **limits))


def test_a_rule_that_exceeds_the_device_is_passed_over():
    target = limited(load_target("jetson-orin"), max_shared_memory_per_block=1024)
    _, records = schedule_gpu(module(*OPERATORS["matmul"], target), target)
    assert records[0].rule != "dlight.Matmul"


def test_launches_are_read_one_by_one():
    target = load_target("jetson-orin")
    mod, _ = schedule_gpu(module(*OPERATORS["softmax"], target), target)
    (kernel,) = [function for _, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)]
    (launch,) = launches(lower_kernel(kernel, target))
    assert launch.grid == (4, 1, 1)
    assert 32 <= launch.block[0] <= 1024
    assert launch.shared_memory > 0
    two = gpu_bind.apply(module_kernel("adaptive_avg_pool2d", target), target).mod["main"]
    assert launches(lower_kernel(two, target)) == [Launch((2, 1, 1), (256, 1, 1), 0)] * 2


def module_kernel(operator, target):
    mod = module(*OPERATORS[operator], target)
    return next(function for _, function in mod.functions_items() if isinstance(function, tirx.PrimFunc))


@T.prim_func(private=True, s_tir=True)
def calls_the_cpu(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
    with T.sblock("sort"):
        T.reads(a[0:4])
        T.writes(b[0:4])
        T.evaluate(T.tvm_call_packed("tvm.contrib.sort.sort", a.data, b.data, dtype="int32"))


def test_a_kernel_that_calls_the_cpu_is_refused():
    with pytest.raises(BuildError, match=r"kernel 'sort' calls 'tvm.contrib.sort.sort'.*compile for a CPU"):
        schedule_kernel(calls_the_cpu, load_target("mali-g610"), "sort")


def test_conditions_of_vectors_are_written_for_c():
    target = load_target("mali-g610")
    kernel = module_kernel("where", target)
    scheduled, _ = schedule_kernel(kernel, target, "where")
    found = []
    tvm_ffi.structural_walk(scheduled.body, [(tirx.Select, found.append)], order="pre")
    assert found == []
