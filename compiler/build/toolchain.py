"""What links a library: the machine's own C compiler, a cross compiler that the target names, or zig.

Only object code and one assembler directive are compiled, so a plain C compiler without headers suffices.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from compiler.support.errors import BuildError
from compiler.target import HOST, Target
from compiler.target_isa import arch_of

_LINES = 4
"""Lines of a failing tool's output that its error quotes."""


@dataclass(frozen=True)
class Linker:
    """A C compiler that links for one target.

    `command` are its words, `flags` more of them; `open_libc` says that the library is linked without a C
    library, whose functions are then found in the process that loads it.
    """

    command: tuple[str, ...]
    flags: tuple[str, ...]
    os: str
    open_libc: bool = False

    def link(self, inputs: list[str], output: Path, folder: Path) -> None:
        """Link `inputs` (objects and C files, relative to `folder`) into the shared library `output`.

        Raises:
            BuildError: the tool is missing or fails.
        """
        words = [*self.command, *_shared(self.os), *self.flags, "-o", str(output), *inputs]
        if not self.open_libc:
            words.append("-lm")
        run_tool(words, folder)

    def compile(self, source: str, output: str, folder: Path, *flags: str) -> None:
        """Compile one C file, relative to `folder` as its object is, for use in a library or a program.

        Raises:
            BuildError: the tool is missing or fails.
        """
        run_tool(
            [*self.command, *self.flags, "-std=c11", "-O2", "-fPIC", *flags, "-c", source, "-o", output],
            folder,
        )

    def archive(self, objects: list[str], output: Path, folder: Path) -> None:
        """Put `objects` into the static library `output`.

        Raises:
            BuildError: the tool is missing or fails.
        """
        run_tool([*self._archiver(), "rcs", str(output), *objects], folder)

    def program(self, inputs: list[str], output: Path, folder: Path, *flags: str) -> None:
        """Link `inputs` (objects and C files, relative to `folder`) into a program.

        Raises:
            BuildError: the tool is missing or fails.
        """
        words = [*self.command, *self.flags, "-std=c11", "-O2", *flags, "-o", str(output), *inputs, "-lm"]
        run_tool([*words, *([] if self.os == "macos" else ["-pthread"])], folder)

    def _archiver(self) -> list[str]:
        """Return the words of what makes static libraries: it comes with the compiler."""
        if self.command[1:3] == ("-m", "ziglang"):
            return [*self.command[:3], "ar"]
        name = Path(self.command[0]).name
        beside = [name.replace(each, "ar") for each in ("gcc", "clang", "cc") if name.endswith(each)]
        return [next((each for each in (*beside, "ar", "llvm-ar") if shutil.which(each)), "ar")]


def linker_for(target: Target) -> Linker:
    """Return what links for `target`: its own compiler, this machine's, or zig.

    The machine's compiler is taken for the target ``host`` alone. Any other target may name the oldest C
    library that its boards have, and only zig links against that.

    Raises:
        BuildError: there is none.
    """
    chain = target.toolchain
    open_libc = "-nostdlib" in chain.flags
    if chain.compiler:
        return Linker(chain.compiler, chain.flags, target.os, open_libc)
    native = target.arch == arch_of(platform.machine()) and target.os == _this_os()
    if native and (target.name == HOST or chain.zig is None) and (own := _own_compiler()):
        return Linker(own, chain.flags, target.os, open_libc)
    if chain.zig is None:
        raise BuildError(
            f"no compiler links for '{target.name}' ({target.triple}): "
            "set toolchain.compiler or toolchain.zig in its descriptor"
        )
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(
            f"no compiler links for '{target.name}' ({target.triple}): install zig (pip install ziglang), "
            "or set toolchain.compiler in its descriptor"
        )
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", chain.zig)
    return Linker(zig, chain.flags, target.os, open_libc)


def static_linker_for(target: Target) -> Linker:
    """Return what links programs for `target` that need nothing, not even a C library.

    That is zig with musl; for the target ``host`` this machine's own compiler, whose programs need its C
    library where there is no static one.

    Raises:
        BuildError: zig is not installed, or the target is no Linux.
    """
    if target.os != "linux":
        raise BuildError(
            f"expected Linux for a program without a C library, got '{target.name}' ({target.os})"
        )
    static = ("-static", "-s")
    if target.name == HOST and (own := _own_compiler()):
        words = (*own, *static) if _links(*own, *static) else (*own, "-s")
        return Linker(words, target.toolchain.flags, target.os)
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError("a program without a C library is linked by zig: pip install ziglang")
    triple = target.toolchain.zig or target.triple
    abi = "musleabihf" if triple.partition(".")[0].endswith("eabihf") else "musl"
    arch = triple.partition("-")[0]
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-{abi}")
    return Linker((*zig, *static), (), target.os)


@lru_cache
def _links(*words: str) -> bool:
    """Tell whether a compiler called with `words` can link a program with threads and mathematics."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.c")
        source.write_text("int main(void) { return 0; }\n", encoding="utf-8")
        try:
            run_tool([*words, source.name, "-o", "empty", "-lm", "-pthread"], Path(folder))
        except BuildError:
            return False
    return True


def run_tool(words: list[str], folder: Path) -> str:
    """Run a tool in `folder` and return what it wrote to standard output and error.

    Raises:
        BuildError: it is missing or fails; the message has the command and its last lines.
    """
    # zig keeps a copy of everything it links, weights included; there it goes when the folder goes.
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")}
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        raise BuildError(f"expected to run `{shlex.join(words)}`: {error.strerror or error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]
        reason = " | ".join(last) or "no output"
        raise BuildError(f"`{shlex.join(words)}` failed with exit code {done.returncode}: {reason}")
    return text


def _shared(system: str) -> list[str]:
    """Return the flags of a shared library; TVM's runtime functions stay open until it is loaded."""
    if system == "macos":
        return ["-dynamiclib", "-undefined", "dynamic_lookup"]
    return ["-shared", "-fPIC", "-O1", "-Wl,-z,noexecstack", "-Wl,--strip-debug"]


def _own_compiler() -> tuple[str, ...] | None:
    """Return this machine's C compiler: ``CC`` if set, else the first of the common names."""
    if words := shlex.split(os.environ.get("CC", "")):
        return tuple(words)
    return next(((path,) for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def _this_os() -> str:
    return {"darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
