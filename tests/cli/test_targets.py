"""kiln targets, show and detect."""

import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from compiler.cli.targets import app
from compiler.support.errors import TargetError, UsageError
from compiler.target import load, names


def run(*words):
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_has_every_target_once():
    lines = run().output.splitlines()
    assert lines[0].split() == ["name", "kind", "cpu", "cores", "vector", "description"]
    assert [line.split()[0] for line in lines[1:]] == names()
    orin = next(line for line in lines if line.startswith("jetson-orin "))
    assert orin.split()[1:6] == ["cuda", "sm_87", "cortex-a78ae", "12", "128x32"]


def test_list_imports_neither_tvm_nor_torch():
    code = (
        "import sys; from compiler.cli.targets import app; app([], standalone_mode=False); "
        "print(sorted({'tvm', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_show_prints_what_can_be_read_back(tmp_path):
    path = tmp_path / "copy.yaml"
    path.write_text(run("show", "mali-g610").output)
    assert load(path) == load("mali-g610")
    assert "sources" in yaml.safe_load(path.read_text())


def test_show_a_file(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text("extends: rpi4\nmemory: 2 GiB\n")
    shown = yaml.safe_load(run("show", str(path)).output)
    assert (shown["name"], shown["memory"], shown["cpu"]) == ("board", "2 GiB", "cortex-a72")


def test_show_an_unknown_target():
    with pytest.raises(TargetError, match="did you mean 'rpi4'"):
        run("show", "rpi44")


def test_an_unknown_target_is_one_line_and_exit_code_2():
    code = "import sys; from compiler.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "targets", "show", "rpi44"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("error: unknown target 'rpi44'; did you mean 'rpi4'? (`kiln targets` lists all)\n")


def test_detect_writes_a_descriptor_to_use_elsewhere(tmp_path):
    path = tmp_path / "shed.yaml"
    assert run("detect", "--output", str(path)).output == ""
    target, host = load(path), load("host")
    assert target.name == "shed"
    assert (target.cpu, target.features, target.caches) == (host.cpu, host.features, host.caches)
    assert run("detect").output == path.read_text()


def test_detect_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        run("detect", "-o", str(tmp_path / "no" / "x.yaml"))


@pytest.mark.parametrize("words", [[], ["show"], ["detect"]])
def test_help_has_examples(words):
    output = run(*words, "--help").output
    assert "For example" in output
    assert "kiln targets" in output
