"""What the stages know, as the plain data that a manifest holds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys

from compiler.bundle.manifest import TargetInfo
from compiler.target import Target, required_features


def describe_target(target: Target) -> TargetInfo:
    """Return what a bundle says about its target."""
    descriptor = json.loads(json.dumps(dataclasses.asdict(target), default=dict))
    # How to log in to someone's board is no business of whoever gets the bundle.
    descriptor.pop("board", None)
    return TargetInfo(
        name=target.name,
        kind=target.kind,
        triple=target.triple,
        cpu=target.cpu,
        features=required_features(target),
        arch=target.accelerator.arch if target.accelerator else None,
        cores=target.cores,
        descriptor=descriptor,
    )


def installed_versions() -> tuple[str, str, str | None]:
    """Return the versions of Kiln and TVM, and torch's if it is loaded."""
    from compiler import __version__

    torch = importlib.metadata.version("torch") if "torch" in sys.modules else None
    return __version__, importlib.metadata.version("apache-tvm"), torch
