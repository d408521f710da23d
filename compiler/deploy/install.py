"""A bundle becomes a version on a board: copied beside the old one, proved there, and only then made current.

On the board there is one folder a model::

    FOLDER/MODEL/versions/ID/    library, header, weights, runner, golden data, SHA256SUMS
    FOLDER/MODEL/current         a link to the version that is used
    FOLDER/MODEL/previous        a link to the one before, for `roll_back`

`current` changes by a rename, so who opens a file through it finds the old version or the new one.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compiler.bundle import AotInfo, Bundle, read
from compiler.deploy.remote import Place, Remote, connected
from compiler.support.errors import BundleError, UsageError
from compiler.support.files import private_folder
from compiler.support.progress import stage

_SUMS = "SHA256SUMS"
_SPARE = 4 << 20
"""Bytes that the runner takes beside weights and arena."""

_MACHINES = {
    "x86_64": ("x86_64", "amd64"),
    "aarch64": ("aarch64", "arm64"),
    "arm": ("armv7l", "armv8l", "aarch64"),
    "riscv64": ("riscv64",),
}
"""What ``uname -m`` says where code of an architecture runs; 64-bit kernels may have 32-bit programs."""

_OUTPUT = re.compile(r"(?P<name>.*): (?P<word>right|WRONG), off by (?P<error>\S+) of its range")
_BENCH = re.compile(
    r"(?P<runs>\d+) runs on (?P<threads>\d+) threads: median (?P<median>\S+) ms, 90% (?P<p90>\S+), "
    r"99% (?P<p99>\S+), least (?P<least>\S+); peak memory (?P<peak>\S+) MiB"
)


@dataclass(frozen=True)
class Installed:
    """What became of a bundle on a board.

    `version` is its name there, `known` whether it was there already. `error` is how far the worst output is
    off, as a part of its range. Times are in milliseconds, `peak_mib` is the greatest resident memory of the
    runner; all are None if nothing was measured.
    """

    place: Place
    version: str
    known: bool
    error: float
    threads: int | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None


def install(bundle: str | Path, place: Place, *, runs: int = 50, threads: int | None = None) -> Installed:
    """Copy a bundle to a board, prove it there and make it the current version; `runs` are measured.

    Raises:
        BundleError: the bundle has no library for boards, is damaged, or computes something else there.
        UsageError: the board cannot be reached or used. What was current is so still.
    """
    opened = read(Path(bundle))
    aot = aot_of(opened)
    with private_folder() as folder, stage(f"connect {place.there}"), connected(place) as remote:
        files = _extracted(opened, aot, folder)
        version = hashlib.sha256(files[_SUMS].read_bytes()).hexdigest()[:12]
        return _Install(remote, opened, aot, version).run(files, runs, threads)


def roll_back(name: str, place: Place) -> str:
    """Make the version before the current one current, and the other way round; return its name.

    Raises:
        UsageError: the board cannot be reached, or there is no version before.
    """
    with connected(place) as remote:
        home = model_folder(place, name)
        known = remote.run(f"cd {home} && readlink current && readlink previous")
        links = known.out.split()
        if known.code != 0 or len(links) != 2:
            raise UsageError(f"{place}: there is no version of '{name}' before the current one in {home}")
        script = f"cd {home} && {_link('previous', links[0])} && {_link('current', links[1])}"
        remote.must(script, "switch to the version before")
        return Path(links[1]).name


def runner_of(bundle: Bundle, aot: AotInfo) -> str:
    """Return the name of the program that runs a bundle's model.

    Raises:
        BundleError: it has none.
    """
    if aot.runner is None:
        raise BundleError(f"'{bundle.path}' holds C, and no program: compile it with --kind aot")
    return aot.runner


def aot_of(bundle: Bundle) -> AotInfo:
    """Return what a bundle says about its library for boards.

    Raises:
        BundleError: it has none.
    """
    if bundle.manifest.aot is None:
        raise BundleError(
            f"'{bundle.path}' is for TVM's runtime, which a board need not have: compile it with --kind aot"
        )
    return bundle.manifest.aot


def _extracted(bundle: Bundle, aot: AotInfo, folder: Path) -> dict[str, Path]:
    """Write the files of a version to `folder`; return them by their names there."""
    golden = bundle.manifest.golden
    names = [*aot.files, *(golden.inputs + golden.outputs if golden else ())]
    files = {}
    for name in names:
        files[name] = folder / name
        files[name].parent.mkdir(exist_ok=True)
        bundle.extract(name, files[name])
    sums = "".join(f"{bundle.manifest.parts[name].sha256}  {name}\n" for name in names)
    files[_SUMS] = folder / _SUMS
    files[_SUMS].write_text(sums, encoding="ascii")
    return files


class _Install:
    """One installation, step by step."""

    def __init__(self, remote: Remote, bundle: Bundle, aot: AotInfo, version: str) -> None:
        self._remote, self._bundle, self._aot, self._version = remote, bundle, aot, version
        self._home, self._runner = model_folder(remote.place, aot.name), runner_of(bundle, aot)

    def run(self, files: Mapping[str, Path], runs: int, threads: int | None) -> Installed:
        """Do all of them."""
        self._look(sum(path.stat().st_size for path in files.values()))
        place = f"versions/{self._version}"
        known = self._remote.run(f"cd {self._home}/{place} && sha256sum -c {_SUMS}").code == 0
        if not known:
            self._copy(files, place)
        said = self._prove(place, runs, threads)
        self._remote.must(f"cd {self._home} && {_keep_two(place)}", "switch to the new version")
        return self._installed(said, known)

    def _look(self, size: int) -> None:
        """Look whether the board can have the bundle before anything is copied."""
        script = (
            f"mkdir -p {self._home}/versions && cd {self._home} && rm -rf versions/.new.* && uname -m && "
        )
        script += "df -Pk . | tail -n 1 && (grep MemAvailable /proc/meminfo || true)"
        machine, disk, *memory = self._remote.must(script, f"use the folder {self._home}").splitlines()
        target, place = self._bundle.manifest.target, self._remote.place
        arch = str(target.descriptor.get("arch") or target.triple.partition("-")[0])
        fits = _MACHINES.get("arm" if arch.startswith("arm") else arch, ())
        if fits and machine.strip() not in fits:
            raise UsageError(
                f"{place}: the bundle is for {arch} ({target.name}), and the board is {machine.strip()}"
            )
        free = int(disk.split()[3]) * 1024
        if free < size:
            raise UsageError(f"{place}: expected {size / 1e6:.1f} MB of free disk, got {free / 1e6:.1f} MB")
        needed = self._aot.weight_bytes + self._aot.arena_bytes + _SPARE
        if memory and (there := int(memory[0].split()[1]) * 1024) < needed:
            weights, arena = self._aot.weight_bytes / 1e6, self._aot.arena_bytes / 1e6
            raise UsageError(
                f"{place}: expected {needed / 1e6:.1f} MB of free memory (weights {weights:.1f}, arena "
                f"{arena:.1f}), got {there / 1e6:.1f} MB"
            )

    def _copy(self, files: Mapping[str, Path], place: str) -> None:
        """Copy to a folder of another name, compare there, and give it its name."""
        new = f"{self._home}/versions/.new.{self._version}"
        try:
            with stage("copy"):
                self._remote.must(f"rm -rf {new} && mkdir -p {new}/golden", "make a folder")
                self._remote.send(files, new)
                self._remote.must(f"cd {new} && sha256sum -c {_SUMS} >/dev/null", "copy without damage")
                self._remote.must(
                    f"cd {self._home} && rm -rf {place} && mv {new} {place}", "name the new version"
                )
        except BaseException:
            with suppress(UsageError):
                self._remote.run(f"rm -rf {new}")
            raise

    def _prove(self, place: str, runs: int, threads: int | None) -> str:
        """Run the golden inputs on the board; a version that fails is removed."""
        words = ["--verify"] if self._bundle.manifest.golden else []
        words += ["--bench", str(runs)] if runs else []
        words += ["--threads", str(threads)] if threads else []
        with stage("verify"):
            done = self._remote.run(f"cd {self._home}/{place} && ./{self._runner} {' '.join(words)}")
        if done.code != 0:
            used = f'test "$(readlink current)" = {place}'
            self._remote.run(f"cd {self._home} && {{ {used} || rm -rf {place}; }}")
            raise BundleError(
                f"{self._remote.place}: the bundle does not run there as it should: {_failure(done.last)}"
            )
        return done.out

    def _installed(self, said: str, known: bool) -> Installed:
        errors = [float(found["error"]) for found in _OUTPUT.finditer(said)]
        found = _BENCH.search(said)
        worst = max(errors, default=0.0)
        place = self._remote.place
        if found is None:
            return Installed(place, self._version, known, worst)
        times = (float(found[name]) for name in ("median", "p90", "p99", "peak"))
        return Installed(place, self._version, known, worst, int(found["threads"]), *times)


def _failure(line: str) -> str:
    return line.removeprefix("error: ")


def model_folder(place: Place, name: str) -> str:
    """Return a model's folder on a board, for a shell; ``~`` is its user's home."""
    folder = place.folder.rstrip("/") or "/"
    if folder == "~" or folder.startswith("~/"):
        return f"~/{shlex.quote(f'{folder[2:]}/{name}'.lstrip('/'))}"
    return shlex.quote(f"{folder}/{name}")


def _link(name: str, to: str) -> str:
    """Return the commands that make the link `name` point to `to`, a word of the shell, by one rename."""
    return f"ln -s {to} .{name}.$$ && mv -Tf .{name}.$$ {name}"


def _keep_two(place: str) -> str:
    """Return the commands that make a version current, and remove all but it and the one before."""
    before = _link("previous", '"$old"')
    return (
        f'old=$(readlink current || true); if [ "$old" != {place} ]; then '
        f'if [ -n "$old" ]; then {before}; fi && '
        f"{_link('current', place)}; fi && "
        "keep=$(readlink previous || true) && for each in versions/*; do "
        f'[ "$each" = {place} ] || [ "$each" = "$keep" ] || rm -rf "$each"; done'
    )
