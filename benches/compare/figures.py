"""What is measured, in the order of the tables, and the bar that the gateway has to meet."""

import dataclasses

from proxies import MTLS, MTLS_HTTP2, PLAIN

MIB = 1 << 20

# What of a load's report is a figure's number.
RATE, RECEIVED, SENT, LATENCY = "per second", "bytes received per second", "bytes sent per second", "latency"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row: options of signet-load, the kind of upstream, and the bar as a multiple of the best peer's."""

    key: str
    name: str
    load: tuple = ()
    shows: str = RATE
    upstream: str = PLAIN
    bar: float | None = None
    # Peers that the bar counts; all of them if empty.
    against: tuple = ()
    needs_hybrid: bool = False
    # Not pinned, with so many workers, once in a run.
    workers: int = 1
    fleet: str = "all"
    warmup: float = 0.5


def http1(connections, *more):
    return ("http1", "-c", connections, "--curve", "x25519", *more)


ROUNDS = (
    Figure("full-x25519", "full handshakes/s, X25519", ("handshake", "-c", 16, "--curve", "x25519"), bar=2),
    Figure("full-hybrid", "full handshakes/s, X25519MLKEM768", ("handshake", "-c", 16, "--curve", "x25519mlkem768"), bar=2, needs_hybrid=True),
    Figure("resumed", "resumed handshakes/s", ("resumed", "-c", 16, "--curve", "x25519"), bar=1.2, fleet="small"),
    Figure("http1", "HTTP/1.1 requests/s, 64 connections", http1(64), bar=1.15),
    Figure("http2", "HTTP/2 requests/s, 16 × 32 streams, upstream HTTP/1.1", ("http2", "-c", 16, "-s", 32, "--curve", "x25519"), bar=1.1),
    Figure("grpc", "gRPC calls/s, 16 × 32 streams, HTTP/2 and mTLS on both sides", ("grpc", "-c", 16, "-s", 32, "--curve", "x25519", "--body", 64), upstream=MTLS_HTTP2, bar=1.2, against=("envoy",)),
    Figure("down", "bulk down, mTLS on one side", http1(8, "--path", f"/bytes/{MIB}"), shows=RECEIVED, bar=1.5),
    Figure("up", "bulk up, mTLS on one side", http1(8, "--body", MIB), shows=SENT, bar=1.5),
    Figure("down-both", "bulk down, mTLS on both", http1(8, "--path", f"/bytes/{MIB}"), shows=RECEIVED, upstream=MTLS, bar=1.5),
    Figure("up-both", "bulk up, mTLS on both", http1(8, "--body", MIB), shows=SENT, upstream=MTLS, bar=1.5),
    Figure("open-5000", "5,000 requests/s, open loop", http1(64, "--rate", 5000), shows=LATENCY, bar=1, warmup=1),
    Figure("open-20000", "20,000 requests/s, open loop", http1(64, "--rate", 20000), shows=LATENCY, bar=1, warmup=1),
)  # fmt: skip

# Once in a run, with processes of their own.
TWO_CORES = (
    Figure("full-x25519-two", "full handshakes/s, X25519, two workers", ("handshake", "-c", 32, "--curve", "x25519"), workers=2),
    Figure("http1-two", "HTTP/1.1 requests/s, 64 connections, two workers", http1(64), workers=2),
)  # fmt: skip
IDLE, START, BINARY, ROTATION = "idle", "start", "binary", "rotation"
# Of the gateway alone, by a program of its own: signet-bench-epoch.
EPOCH = "epoch"
# How the gateway's cost grows: what is varied, and how far.
GROWTH = {
    "connections": (10, 100, 1000, 10_000),
    "rules": (1, 10, 100, 1000),
    "peers": (10, 100, 1000, 10_000),
}
ONCE = ("two-cores", START, BINARY, IDLE, ROTATION, EPOCH, *(f"growth-{what}" for what in GROWTH))

ALL_KEYS = tuple(figure.key for figure in ROUNDS) + ONCE
