"""Kiln compiles PyTorch models for a chosen device.

The folders are the stages, in the order in which data flows: frontend, compress, passes, schedule,
tune, build, bundle, deploy. `compiler.driver` joins them on one page.

    compiled = compiler.compile(module, example_inputs)    # see compiler.driver.compile
    outputs = compiled(*inputs)
    compiled.save("model.kiln")
    session = compiler.load("model.kiln")                  # see compiler.deploy.load; needs no torch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.deploy import load as load
    from compiler.driver import compile as compile

__version__ = "0.1.0"

__all__ = ["__version__", "compile", "load"]


def __getattr__(name: str) -> Any:
    # torch and TVM take seconds to import; `import compiler` must not.
    if name == "compile":
        from compiler.driver import compile as found
    elif name == "load":
        from compiler.deploy import load as found  # type: ignore[assignment]
    else:
        raise AttributeError(f"module 'compiler' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
