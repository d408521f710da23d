"""Bundles on a board: over a true sshd on loopback, with this machine as the board."""

import getpass
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
import torch
from torch import nn

import compiler
from compiler.deploy.install import install, roll_back
from compiler.deploy.remote import SSH, Place, parse_place
from compiler.driver_diff import diff
from compiler.support.errors import BundleError, UsageError
from tests.conftest import needs


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start sshd; return its port and the ssh configuration that reaches it."""
    needs("ssh", why="apt-get install openssh-client")
    daemon = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    needs(daemon or "sshd", why="apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user", "stranger"):
        keygen(folder / name)
    (folder / "known").write_text("* " + (folder / "host.pub").read_text())
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile {folder}/pid\nMaxStartups 50\n"
        "PermitRootLogin yes\n"
    )
    subprocess.run(["mkdir", "-p", "/run/sshd"], check=False, stderr=subprocess.DEVNULL)
    process = subprocess.Popen([daemon, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    for name in ("user", "stranger"):
        (folder / f"{name}.config").write_text(
            f"Host *\n IdentityFile {folder}/{name}\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {folder}/known\n"
            " GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n"
        )
    yield port, folder
    process.terminate()
    process.wait()


@pytest.fixture
def board(server, tmp_path, monkeypatch):
    port, folder = server
    monkeypatch.setenv(SSH, f"ssh -F {folder}/user.config")
    return Place(f"{getpass.getuser()}@127.0.0.1", str(tmp_path / "board"), port)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Return two versions of a model, and one for another machine."""
    folder = tmp_path_factory.mktemp("bundles")
    paths = []
    for number in range(2):
        torch.manual_seed(number)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
        paths.append(folder / f"net{number}.kiln")
        compiler.compile(net, (torch.randn(1, 3, 8, 8),), output=paths[-1], name="net", kind="aot")
    return paths


def current(board):
    home = board.folder
    return subprocess.run(
        ["readlink", f"{home}/net/current"], capture_output=True, text=True, check=False
    ).stdout.strip()


def versions(board):
    done = subprocess.run(
        ["ls", "-A", f"{board.folder}/net/versions"], capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def test_a_bundle_is_copied_proved_and_made_current(board, bundles):
    done = install(bundles[0], board, runs=5, threads=1)
    assert (done.threads, done.known) == (1, False)
    assert 0 <= done.error <= 1e-4
    assert 0 < done.median_ms <= done.p99_ms
    assert done.peak_mib > 0
    assert current(board) == f"versions/{done.version}"
    there = subprocess.run(
        [f"{board.folder}/net/current/net-run", "--verify"], capture_output=True, text=True, check=True
    )
    assert "right" in there.stdout
    again = install(bundles[0], board, runs=0)
    assert (again.known, again.version, again.median_ms) == (True, done.version, None)


def test_an_update_and_the_way_back(board, bundles):
    first, second = (install(bundle, board, runs=0).version for bundle in bundles)
    assert current(board) == f"versions/{second}"
    assert sorted(versions(board)) == sorted([first, second])
    assert roll_back("net", board) == first
    assert current(board) == f"versions/{first}"
    assert roll_back("net", board) == second
    assert install(bundles[0], board, runs=0).known


def test_layers_on_a_board_are_those_of_pytorch(board, tmp_path, kiln):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()\n"
        "    return net, (torch.zeros(1, 3, 8, 8),)\n"
    )
    path = tmp_path / "net.kiln"
    compiler.compile(f"{tmp_path}/net.py:make", output=path, kind="aot")
    here, there = diff(path), diff(path, place=board)
    assert [each.layer for each in there] == [each.layer for each in here]
    assert all(each.error <= 1e-5 for each in there)
    assert len(there) >= 2
    place = f"{board.there}:{board.folder}"
    code, out, err = kiln("diff", path, "--board", place, "--port", board.port)
    assert code == 0, err
    assert f"{len(there)} layers are within 0.001" in out


def test_there_is_no_way_back_from_the_first(board, bundles):
    install(bundles[0], board, runs=0)
    with pytest.raises(UsageError, match="no version of 'net' before"):
        roll_back("net", board)


@pytest.mark.parametrize("damage", ["verify", "arch", "memory", "copy", "full"])
def test_what_was_current_stays_when_an_update_fails(board, bundles, monkeypatch, tmp_path, damage):
    first = install(bundles[0], board, runs=0).version
    tools = tmp_path / "tools"
    tools.mkdir()
    # What the board says, or does, differently: a program of that name comes first in its PATH.
    programs = {
        "arch": ("uname", "echo riscv64"),
        "memory": ("grep", "echo MemAvailable: 100 kB"),
        "copy": ("tar", "head -c 3000 > half; exit 1"),
        "full": ("df", "echo /dev/root 100 100 0 100% /"),
        "verify": ("sha256sum", "exec /usr/bin/sha256sum $*"),
    }
    name, body = programs[damage]
    tool = tools / name
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    monkeypatch.setattr("compiler.deploy.remote.PREFIX", f"PATH={tools}:$PATH; ")
    line = {
        "arch": "the bundle is for .*, and the board is riscv64",
        "memory": "expected .* MB of free memory .* got 0.1 MB",
        "copy": "cannot copy to",
        "full": "expected .* MB of free disk, got 0.0 MB",
        "verify": "does not run there as it should: .*WRONG",
    }[damage]
    bundle = bundles[1]
    if damage == "verify":
        bundle = with_wrong_golden(bundle, tmp_path / "wrong.kiln")
    with pytest.raises((UsageError, BundleError), match=line):
        install(bundle, board, runs=0)
    assert current(board) == f"versions/{first}"
    assert versions(board) == [first]


def with_wrong_golden(path, to):
    """Write a bundle again with another golden output."""
    from compiler.bundle import read, write
    from compiler.bundle.arrays import to_npy

    bundle = read(path)
    contents = {name: bundle.read(name) for name in bundle.manifest.parts}
    (output,) = bundle.manifest.golden.outputs
    contents[output] = to_npy(np.load(path_of(contents[output], to)) + 1)
    write(to, bundle.manifest, contents)
    return to


def path_of(data, to):
    path = to.with_suffix(".npy")
    path.write_bytes(data)
    return path


def test_a_board_that_cannot_be_reached_is_told(server, bundles, monkeypatch, tmp_path):
    port, folder = server
    monkeypatch.setenv(SSH, f"ssh -F {folder}/user.config")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    user = getpass.getuser()
    with pytest.raises(UsageError, match=r"cannot reach .*Connection refused"):
        install(bundles[0], Place(f"{user}@127.0.0.1", str(tmp_path), closed))
    monkeypatch.setenv(SSH, f"ssh -F {folder}/stranger.config")
    with pytest.raises(UsageError, match=r"cannot reach .*Permission denied"):
        install(bundles[0], Place(f"{user}@127.0.0.1", str(tmp_path), port))
    monkeypatch.setenv(SSH, "no-such-ssh")
    with pytest.raises(UsageError, match="expected to run `ssh`"):
        install(bundles[0], Place(f"{user}@127.0.0.1", str(tmp_path), port))


@pytest.mark.parametrize(
    ("text", "there", "folder"),
    [
        ("pi@board", "pi@board", "~/kiln"),
        ("board.local:/opt/models", "board.local", "/opt/models"),
        ("pi@[fe80::1%eth0]:models", "pi@fe80::1%eth0", "models"),
    ],
)
def test_places(text, there, folder):
    assert parse_place(text, "~/kiln") == Place(there, folder)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "pi@", "@host"])
def test_what_is_no_place(text):
    with pytest.raises(UsageError, match="expected a board as USER@HOST"):
        parse_place(text, "~/kiln")


def test_bundles_for_tvm_are_refused(board, tmp_path):
    path = tmp_path / "tvm.kiln"
    compiler.compile(nn.Linear(4, 4), (torch.randn(1, 4),), output=path, kind="tvm", check=False)
    with pytest.raises(BundleError, match="is for TVM's runtime"):
        install(path, board)


def test_the_command_line_deploys_and_goes_back(board, bundles, kiln):
    where = f"{board.there}:{board.folder}"
    code, out, err = kiln("deploy", bundles[0], where, "--port", board.port, "--runs", 3)
    assert code == 0, err
    assert "median ms" in out
    assert kiln("deploy", bundles[1], where, "--port", board.port, "--runs", 0)[0] == 0
    code, out, err = kiln("deploy", bundles[1], where, "--port", board.port, "--rollback")
    assert code == 0, err
    assert "is version" in out


def test_a_fleet_reports_each_board(board, bundles, tmp_path, kiln):
    places = [f"{board.there}:{tmp_path}/{name}" for name in ("a", "b")]
    (tmp_path / "file").write_text("no folder")
    code, out, err = kiln(
        "fleet", bundles[0], *places, f"{board.there}:{tmp_path}/file", "--port", board.port, "--runs", 2
    )
    assert code == 2
    assert out.count(board.there) == 2
    assert "1 of 3 boards failed" in err
    assert "cannot use the folder" in err
