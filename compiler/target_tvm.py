"""From a `Target` to TVM's: the only place where descriptors meet TVM's and LLVM's own names."""

from __future__ import annotations

import functools
from typing import Any

from compiler.support.errors import TargetError, did_you_mean
from compiler.target import Accelerator, Target
from compiler.target_isa import arch_of, vocabulary


@functools.lru_cache(maxsize=64)
def tvm_target(target: Target) -> Any:
    """Return the ``tvm.target.Target`` of `target`; accelerators carry their CPU as the host.

    Raises:
        TargetError: LLVM knows no such triple, CPU or feature.
    """
    import tvm

    cpu = _cpu(target)
    if target.accelerator is None:
        return tvm.target.Target(cpu)
    return tvm.target.Target({**_gpu(target.kind, target.accelerator), "host": cpu})


def llvm_features(triple: str, cpu: str, attributes: tuple[str, ...] = ()) -> frozenset[str]:
    """Return all features that LLVM turns on for `cpu` with `attributes` (``+name``, ``-name``).

    Raises:
        TargetError: LLVM knows no such triple or CPU.
    """
    from tvm.target import codegen

    # Asked first: LLVM writes a complaint of its own when it is given a CPU that it does not know.
    if not codegen.llvm_is_valid_cpu(cpu, triple):
        near = did_you_mean(cpu, map(str, codegen.llvm_get_cpu_archlist(_probe(triple, "", ()))))
        raise TargetError(f"expected a CPU that LLVM knows for '{triple}', got '{cpu}'{near}")
    return frozenset(map(str, codegen.llvm_get_cpu_features(_probe(triple, cpu, attributes))))


def _probe(triple: str, cpu: str, attributes: tuple[str, ...]) -> Any:
    import tvm

    words = {"kind": "llvm", "mtriple": triple, "mattr": list(attributes), "mcpu": cpu}
    try:
        return tvm.target.Target({key: value for key, value in words.items() if value})
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        raise TargetError(f"expected a triple that LLVM knows, got '{triple}' ({reason})") from error


def _cpu(target: Target) -> dict[str, Any]:
    attributes = _attributes(target)
    words: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": target.triple,
        "mcpu": target.cpu,
        "num-cores": target.cores,
    }
    if attributes:
        words["mattr"] = list(attributes)
    if target.vector.bits >= 128:
        # TVM takes every x86 for one with AVX-512 otherwise.
        words["vector-width"] = target.vector.bits
    if target.triple.endswith("eabihf"):
        words["mfloat-abi"] = "hard"
    if target.abi is not None:
        words["mabi"] = target.abi
    return words


def _attributes(target: Target) -> tuple[str, ...]:
    """Return what must be switched so that LLVM uses the descriptor's features, and no others.

    LLVM's model of a CPU can have more than the device (a virtual machine hides features, a vendor
    leaves out options of a core); such code would die there of an illegal instruction.
    """
    listed, words = frozenset(target.features), vocabulary(target.arch)
    attributes = _switches(target.triple, target.cpu, listed)
    unknown = [word[1:] for word in attributes if word[0] == "+" and word[1:] not in words]
    if unknown and (lost := sorted(set(unknown) - _all_features(target.triple))):
        raise TargetError(
            f"target '{target.name}': expected features that LLVM knows for '{target.triple}', "
            f"got '{lost[0]}'{did_you_mean(lost[0], words)}"
        )
    if attributes:
        used = llvm_features(target.triple, target.cpu, attributes)
        lost, implied = sorted(listed - used), sorted((used & words) - listed)
        if lost or implied:
            what = (
                f"{', '.join(lost)} cannot be without others"
                if lost
                else f"others imply {', '.join(implied)}"
            )
            raise TargetError(
                f"target '{target.name}': expected a complete list of features; {what}: list them too"
            )
    return attributes


def settle(triple: str, cpu: str, features: frozenset[str]) -> frozenset[str]:
    """Return `features` as LLVM can use them: with all that they imply, without those that lack their base.

    Raises:
        TargetError: LLVM knows no such triple or CPU.
    """
    return llvm_features(triple, cpu, _switches(triple, cpu, features)) & vocabulary(arch_of(triple))


def _switches(triple: str, cpu: str, features: frozenset[str]) -> tuple[str, ...]:
    """Return what turns LLVM's `cpu` into one with `features`: ``-name`` first, then ``+name``."""
    known = llvm_features(triple, cpu)
    off = sorted((known & vocabulary(arch_of(triple))) - features)
    return tuple(f"-{name}" for name in off) + tuple(f"+{name}" for name in sorted(features - known))


@functools.lru_cache(maxsize=8)
def _all_features(triple: str) -> frozenset[str]:
    """Return the features of all CPUs of the triple: LLVM has no list, and only warns of unknown names."""
    from tvm.target import codegen

    cpus = map(str, codegen.llvm_get_cpu_archlist(_probe(triple, "", ())))
    return frozenset().union(
        *(map(str, codegen.llvm_get_cpu_features(_probe(triple, cpu, ()))) for cpu in cpus)
    )


def _gpu(kind: str, gpu: Accelerator) -> dict[str, Any]:
    words: dict[str, Any] = {
        "kind": kind,
        "max_threads_per_block": gpu.max_threads_per_block,
        "max_shared_memory_per_block": gpu.max_shared_memory_per_block,
    }
    if kind == "cuda":
        words |= {"arch": gpu.arch, "thread_warp_size": gpu.warp_size}
        words["max_num_threads"] = gpu.max_threads_per_block
        if gpu.registers_per_block is not None:
            words["registers_per_block"] = gpu.registers_per_block
        if gpu.l2:
            words["l2_cache_size_bytes"] = gpu.l2
        return words
    # A kernel with many registers gets fewer threads than the limit, and there is no way to tell from
    # here; 256 always fit.
    words["max_num_threads"] = min(256, gpu.max_threads_per_block)
    if kind == "opencl":
        # Sub-group shuffles are an extension in OpenCL, so TVM may not exchange values in a warp.
        words["thread_warp_size"] = 1
        if gpu.arch != "generic":
            words["device"] = gpu.arch
    else:
        words["thread_warp_size"] = gpu.warp_size
    return words
