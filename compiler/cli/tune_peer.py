"""The runtime that a tuning is compared with: measured before it, or stated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.deploy.benchmark import Plan
    from compiler.tune.beside import PeerTime

_STATED = "peer"
_SECONDS = 2.0
"""How long each peer is measured."""

_PRECISIONS = {"int8": "int8", "bf16": "bf16"}
"""What peers compute in beside a scheme of Kiln's whose name begins so."""


def peer_time(
    model: str,
    against: str | None,
    peer_ms: float | None,
    *,
    inputs: list[str] | None = None,
    threads: int | None = None,
    quantize: str | None = None,
    calibrate: str | None = None,
) -> PeerTime | None:
    """Return what one run takes in the fastest of the peers in `against`, or the `peer_ms` that are stated.

    Peers run in processes of their own, which have ended when this returns. None if nothing was asked.

    Raises:
        UsageError: a peer is unknown, none could be measured, or the statement makes no sense.
        KilnError: the model cannot be loaded.
    """
    from compiler.support.errors import UsageError
    from compiler.tune.beside import PeerTime

    if peer_ms is not None:
        if not 0 < peer_ms < float("inf"):
            raise UsageError(f"expected --peer-ms above 0, got {peer_ms:g}")
        if against is not None and "," in against:
            raise UsageError("--peer-ms states what one peer takes: name one with --against")
        return PeerTime(against or _STATED, peer_ms / 1e3)
    if against is None:
        return None
    return _measured(plan(model, against, inputs, threads, quantize, calibrate))


def plan(
    model: str,
    against: str,
    inputs: list[str] | None,
    threads: int | None,
    quantize: str | None,
    calibrate: str | None,
) -> Plan:
    """Return how the peers are measured: at the precision that Kiln is tuned for.

    Raises:
        UsageError: a peer is unknown, or peers have nothing like what Kiln is tuned for.
    """
    from compiler.cli.bench import all_cores, named_peers
    from compiler.deploy.benchmark import Plan
    from compiler.support.errors import UsageError

    precision = "fp32"
    if quantize is not None:
        precision = next((each for name, each in _PRECISIONS.items() if quantize.startswith(name)), "")
    if not precision:
        raise UsageError(f"peers have nothing like '{quantize}': state a time with --peer-ms")
    return Plan(
        model, named_peers(against), tuple(inputs or ()), precision, all_cores(threads), _SECONDS,
        calibrate=calibrate if precision != "fp32" else None, peers_only=True,
    )  # fmt: skip


def _measured(plan: Plan) -> PeerTime:
    from compiler.cli.bench import measure
    from compiler.support.errors import UsageError
    from compiler.support.progress import note, stage
    from compiler.tune.beside import PeerTime

    with stage("peer"):
        report = measure(plan)
        best = report.best_peer
        if best is None:
            wrong = dict.fromkeys(report.runtimes, "its results are wrong")
            reasons = "; ".join(f"{name}: {why}" for name, why in {**wrong, **report.failed}.items())
            raise UsageError(f"no peer could be measured: {reasons or 'none was named'}")
        found = PeerTime(best, report.runtimes[best].median_ms / 1e3)
        note(str(found))
    return found
