#!/usr/bin/env python3
"""What Kiln asks of ssh, with this machine at both ends: a master that forwards ports, and commands to it."""

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def forward(text):
    host, port, there, number = text.split(":")
    listener = socket.create_server((host, int(port)))

    def serve():
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((there, int(number)))
            threading.Thread(target=pump, args=(near, far), daemon=True).start()
            threading.Thread(target=pump, args=(far, near), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


words = sys.argv[1:]
with open(os.environ["FAKE_SSH_LOG"], "a") as log:
    print(" ".join(words), file=log)
control = words[words.index("-S") + 1]
if "-O" in words:
    if words[words.index("-O") + 1] == "forward":
        if os.fork() == 0:  # the true one asks its master to do it
            for number in (0, 1, 2):
                os.close(number)
            forward(words[words.index("-L") + 1])
            while os.path.exists(control):
                time.sleep(0.1)
            os._exit(0)
        time.sleep(0.3)
    sys.exit(0)
if words[-1] == "nobody@nowhere":
    sys.exit("ssh: Could not resolve hostname nowhere")
for flag, value in itertools.pairwise(words):
    if flag == "-L":  # what -R would listen at is taken: it is the same machine
        forward(value)
open(control, "w").close()
signal.signal(signal.SIGTERM, lambda *about: sys.exit(0))
try:
    time.sleep(1000)
finally:
    os.unlink(control)
