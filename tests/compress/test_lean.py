import json
import subprocess
import sys

import pytest

ON_NUMPY = ["calibrate", "data", "grids"]
"""What works on arrays, and with it all that these import."""


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import compiler.compress", {"tvm", "torch", "numpy"}),
        ("import " + ", ".join(f"compiler.compress.{name}" for name in ON_NUMPY), {"tvm", "torch", "PIL"}),
    ],
)
def test_imports_stay_lean(statement, absent):
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(run.stdout)) & absent
