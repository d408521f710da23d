"""TVM's runtime for another machine, out of the wheels of the versions that are installed here."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

from compiler.support.errors import BuildError
from compiler.target import Target

LIBRARIES = ("libtvm_runtime.so", "libtvm_ffi.so")

_GLIBCS = ("2_28", "2_27", "2_17")
"""C libraries that wheels may be for, newest first."""


def fetch_runtime(target: Target, folder: Path) -> tuple[Path, ...]:
    """Write `LIBRARIES` for a target to `folder`, from the package index; return their paths.

    Raises:
        BuildError: there are no wheels for it, or the index cannot be reached.
    """
    if target.os != "linux" or target.arch not in ("x86_64", "aarch64"):
        raise BuildError(
            f"the package index has TVM for x86_64 and aarch64 under Linux, and '{target.name}' is "
            f"{target.arch} under {target.os}: build TVM's runtime for it, or take --kind aot"
        )
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    for level in (*(f"_{each}" for each in _GLIBCS), "2014"):
        words += ["--platform", f"manylinux{level}_{target.arch}"]
    words += ["--python-version", f"{sys.version_info[0]}.{sys.version_info[1]}", "--implementation", "cp"]
    done = subprocess.run(
        [*words, "--dest", str(folder), *versions], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise BuildError(f"cannot fetch TVM's wheels for {target.arch} from the package index: {last}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name in LIBRARIES:
                    (folder / Path(name).name).write_bytes(archive.read(name))
        wheel.unlink()
    return tuple(folder / name for name in LIBRARIES)
