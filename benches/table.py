"""Prints the results of `benches/run` as one Markdown table: medians over the rounds."""

import json
import pathlib
import statistics
import sys

FIGURES = [
    ("full-x25519", "full handshakes/s, X25519"),
    ("full-hybrid", "full handshakes/s, X25519MLKEM768"),
    ("resumed", "resumed handshakes/s"),
    ("http1", "HTTP/1.1 requests/s, 64 connections"),
    ("http2", "HTTP/2 requests/s, 16 × 32 streams"),
    ("open-5000", "5,000 requests/s open loop"),
]
# The generator shares its core with the upstream: above this it, not the proxy, may have been the limit.
GENERATOR_LIMIT_CORES = 0.9


def main():
    folder, proxies = pathlib.Path(sys.argv[1]), sys.argv[2:]
    print("| figure | " + " | ".join(f"{proxy} /s | p50 / p99 / p99.9 ms | failed" for proxy in proxies) + " |")
    print("|---|" + "---|---|---|" * len(proxies))
    for key, name in FIGURES:
        cells = [name]
        for proxy in proxies:
            rounds = [json.loads(path.read_text() or "null") for path in sorted(folder.glob(f"{key}.{proxy}.*.json"))]
            cells += cells_of([found for found in rounds if found])
        print("| " + " | ".join(cells) + " |")
    print("\n`*`: the generator used more than 0.9 of its core and may have been the limit.")


def cells_of(rounds):
    if not rounds:
        return ["none", "", ""]
    rate = statistics.median(found["operations_per_second"] for found in rounds)
    limited = "*" if any(found["generator_cores"] > GENERATOR_LIMIT_CORES for found in rounds) else ""
    latency = " / ".join(
        f"{statistics.median(found['latency_microseconds'][quantile] for found in rounds) / 1000:.3f}"
        for quantile in ("p50", "p99", "p99_9")
    )
    return [f"{rate:,.0f}{limited}", latency, str(sum(found["failed"] for found in rounds))]


main()
