"""kiln board, as processes: a tracker and a board find each other, also through ssh, and end with Ctrl-C."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from compiler.cli import main
from compiler.support.ssh import command, free_port, tunnel
from compiler.tune import tracker
from tests.cli.test_process import KILN, ROOT


@contextmanager
def kiln(*words, says):
    """Run a verb until the block ends, by Ctrl-C; yield the process when it has said something."""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*KILN, *words], env=environment, start_new_session=True, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert says in line
            yield process
        finally:
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGINT)
                assert process.wait(20) == 130
                _, alive = psutil.wait_procs(children, timeout=10)
                assert not alive


def wait_for_boards(where, count):
    end = time.monotonic() + 20
    while tracker.count(where, "edge") != count:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_tracker_and_boards_of_it(ssh, capfd):
    own, port = str(free_port()), str(free_port())
    where = tracker.Address("127.0.0.1", int(own))
    with kiln("board", "tracker", "--port", own, says=f"tracker listens at {where}"):
        assert main(["board", "list", "--tracker", str(where)]) == 0
        assert capfd.readouterr().out == f"the tracker at {where} knows no board yet\n"
        told = f"board 'edge' listens at 127.0.0.1:{port} for the tracker at {where}"
        with kiln(
            "board", "serve", "--key", "edge", "--port", port, "--tracker", str(where), says=told
        ) as board:
            wait_for_boards(where, 1)
            assert main(["board", "list", "--tracker", str(where), "--ssh", "me@lab"]) == 0
            assert [line.split() for line in capfd.readouterr().out.splitlines()] == [
                ["key", "total", "free", "waiting"],
                ["edge", "1", "1", "0"],
            ]
            # What is killed without a chance to clean up leaves no server behind either.
            (server,) = psutil.Process(board.pid).children()
            board.kill()
            assert board.wait(10) == -signal.SIGKILL
            _, alive = psutil.wait_procs([server], timeout=10)
            assert not alive
        wait_for_boards(where, 0)
        words = ["--key", "edge", "--port", port, "--tracker", str(where), "--ssh", "me@lab"]
        with kiln("board", "serve", *words, says=f"{told} through me@lab"):
            wait_for_boards(where, 1)
            assert f"-R 127.0.0.1:{port}:127.0.0.1:{port} me@lab" in ssh.read_text()


def test_what_ssh_is_asked_for(ssh):
    words = command("pi@board", Path("/tmp/c"), ["1:127.0.0.1:2"], ["3:127.0.0.1:4"])
    assert words[:5] == ["ssh", "-N", "-T", "-M", "-S"]
    assert "ExitOnForwardFailure=yes" in words
    assert words[-5:] == ["-L", "127.0.0.1:1:127.0.0.1:2", "-R", "127.0.0.1:3:127.0.0.1:4", "pi@board"]
    with tunnel("pi@board", [f"{free_port()}:127.0.0.1:1"]) as control:
        assert control.exists()
    assert not control.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "--tracker", "127.0.0.1:1"], "no tracker answers at 127.0.0.1:1: Connection refused"),
        (["list", "--tracker", "nowhere:x"], "expected HOST:PORT such as 127.0.0.1:9190, got 'nowhere:x'"),
        (["list", "--ssh", "nobody@nowhere"], "failed: ssh: Could not resolve hostname nowhere"),
        (["list", "--ssh=-oProxyCommand=evil"], "expected USER@HOST for ssh"),
        (["serve", "--tracker", "10.0.0.1"], "cannot reach this board at 127.0.0.1: give --ssh"),
        (["serve", "--key", "a b"], "expected a key without spaces and colons, got 'a b'"),
        (["serve", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1:9090"),
        (["tracker", "--port", "0"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_one_line(ssh, words, message, capfd):
    assert main(["board", *words]) == 2
    line = capfd.readouterr().err
    assert message in line
    assert line.count("\n") == 1
