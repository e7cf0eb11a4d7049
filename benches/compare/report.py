"""Makes the Markdown tables from results files.

    report.py table FILE             one run
    report.py short FILE             the gateway and the best peer alone, for the README
    report.py results FILE...        benches/RESULTS.md of several runs, with benches/compare/findings.md and what
                                     benches/issuer/run and benches/authorities/run wrote
"""

import json
import pathlib
import statistics
import sys

import figures
from figures import LATENCY, RECEIVED, SENT

HERE = pathlib.Path(__file__).resolve().parent
REFERENCES = ("gateway", "hyper")
TITLES = {"gateway": "gateway", "hyper": "plain hyper", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "pingora": "Pingora"}
# Above this share of its core, whoever stands on it was the limit.
BUSY = 0.9
NONE = "–"
LEGEND = (
    "Each cell: median (spread) · CPU of the proxy per operation · limit. Spread is half the range of the rounds by the median. "
    "The limit is **p**, the proxy's core, **g**, the core of generator and upstream, or nobody (·): then something else on the "
    "machine was. `†`: not both were limited by the proxy, so the ratio is that of CPU per operation. Ratios are the gateway's by "
    "the best peer's; plain hyper is a reference, not a peer."
)


def main():
    match sys.argv[1:]:
        case ["table", file]:
            print("\n".join(table(read(file))))
        case ["short", file]:
            print("\n".join(short(read(file))))
        case ["results", *files] if files:
            print("\n".join(results_page([read(file) for file in files], files)))
        case _:
            sys.exit(__doc__)


def read(file):
    return json.loads(pathlib.Path(file).read_text())


class Run:
    """One results file, by figure and proxy."""

    def __init__(self, results):
        self.results = results
        self.proxies = list(results["versions"])
        self.peers = [proxy for proxy in self.proxies if proxy not in REFERENCES]

    def samples(self, figure, proxy):
        return [s for s in self.results["samples"] if s["figure"] == figure and s["proxy"] == proxy]

    def cell(self, figure, proxy):
        samples = [s for s in self.samples(figure.key, proxy) if s.get("latency_microseconds")]
        return Cell(figure, samples) if samples else None


class Cell:
    """The rounds of one proxy in one figure."""

    def __init__(self, figure, samples):
        self.figure = figure
        self.samples = samples
        self.failed = sum(s["failed"] for s in samples)
        self.cpu = median_of(samples, lambda s: s["proxy_cpu_microseconds"])
        self.proxy_cores = median_of(samples, lambda s: s["proxy_cores"]) or 0
        self.load_cores = median_of(samples, lambda s: s["load_cores"]) or 0
        values = [self.value_of(s) for s in samples]
        self.value = statistics.median(values)
        self.spread = (max(values) - min(values)) / 2 / self.value if self.value else 0

    def value_of(self, sample):
        if self.figure.shows == RECEIVED:
            return sample["received_per_second"]
        if self.figure.shows == SENT:
            return sample["sent_per_second"]
        return sample["per_second"]

    def latency(self, quantile):
        return median_of(self.samples, lambda s: s["latency_microseconds"][quantile]) / 1000

    @property
    def limit(self):
        if self.proxy_cores > BUSY:
            return "p"
        return "g" if self.load_cores > BUSY else "·"

    def text(self):
        failed = f" **{self.failed} failed**" if self.failed else ""
        if self.figure.shows == LATENCY:
            times = " / ".join(f"{self.latency(quantile):.3f}" for quantile in ("p50", "p99", "p99_9"))
            behind = "" if self.kept_up else f" **{self.value:,.0f}/s only**"
            return f"{times} ms · {micros(self.cpu)}{behind}{failed}"
        value = f"{self.value / 1e9:.2f} GB/s" if self.figure.shows in (RECEIVED, SENT) else f"{self.value:,.0f}"
        return f"{value} (±{self.spread:.0%}) · {micros(self.cpu)} · {self.limit}{failed}"

    @property
    def kept_up(self):
        """Whether an open loop's rate was reached: latencies of those that fell behind are no one's to compare."""
        load = list(self.figure.load)
        return self.value > 0.98 * load[load.index("--rate") + 1]


def median_of(samples, of):
    values = [of(sample) for sample in samples if of(sample) is not None]
    return statistics.median(values) if values else None


def micros(cpu):
    return NONE if cpu is None else f"{cpu:.1f} µs"


# The bars


def verdict(run, figure):
    """The ratio to the best peer and whether the bar is met, in words."""
    ours = run.cell(figure, "gateway")
    peers = {peer: run.cell(figure, peer) for peer in figure.against or run.peers}
    peers = {peer: cell for peer, cell in peers.items() if cell and cell.value and not cell.failed}
    if figure.bar is None or not ours or not peers:
        return NONE
    if figure.shows == LATENCY:
        return latency_verdict(ours, peers)
    best = max(peers, key=lambda peer: peers[peer].value)
    ratio, mark = ours.value / peers[best].value, ""
    if (ours.limit, peers[best].limit) != ("p", "p"):
        best = min(peers, key=lambda peer: peers[peer].cpu)
        ratio, mark = peers[best].cpu / ours.cpu, "†"
    return f"{yes_or_no(ratio >= figure.bar)} {ratio:.2f}{mark} × {TITLES[best]}, bar {figure.bar}"


def latency_verdict(ours, peers):
    peers = {peer: cell for peer, cell in peers.items() if cell.kept_up}
    if not ours.kept_up:
        return "**missed:** does not keep up"
    if not peers:
        return "met: no peer keeps up"
    words, met = [], True
    for name, quantile in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9")):
        best = min(peers, key=lambda peer: peers[peer].latency(quantile))
        ratio = ours.latency(quantile) / peers[best].latency(quantile)
        met = met and ratio <= 1
        words.append(f"{name} {ratio:.2f} × {TITLES[best]}")
    return f"{yes_or_no(met)} {', '.join(words)}, bar 1"


def yes_or_no(met):
    return "met:" if met else "**missed:**"


# Tables


def table(results):
    run = Run(results)
    lines = side_by_side(run)
    for part in (two_cores(run), memory(run), rotation(run), epoch(run), growth(run)):
        if part:
            lines += ["", *part]
    lines += [line for what in results.get("not_measured", ()) for line in ("", f"Not measured: {what}")]
    return [*lines, "", LEGEND]


def side_by_side(run):
    measured = [figure for figure in figures.ROUNDS if any(run.samples(figure.key, proxy) for proxy in run.proxies)]
    if not measured:
        return []
    rows = [[figure.name, *cells(run, figure), verdict(run, figure)] for figure in measured]
    return markdown(["", *(TITLES[proxy] for proxy in run.proxies), "the gateway"], rows)


def cells(run, figure):
    found = [run.cell(figure, proxy) for proxy in run.proxies]
    return [cell.text() if cell else NONE for cell in found]


def short(results):
    run = Run(results)
    rows = []
    for figure in figures.ROUNDS:
        ours = run.cell(figure, "gateway")
        peers = {peer: cell for peer in run.peers if (cell := run.cell(figure, peer)) and cell.value and not cell.failed}
        if not ours or not peers:
            continue
        if figure.shows == LATENCY:
            peers = {peer: cell for peer, cell in peers.items() if cell.kept_up}
            best = min(peers, key=lambda peer: peers[peer].latency("p99"), default=None)
        else:
            best = max(peers, key=lambda peer: peers[peer].value)
        if best:
            rows.append([figure.name, brief(ours), f"{brief(peers[best])} ({TITLES[best]})"])
    return markdown(["", "gateway", "best of nginx, HAProxy, Envoy, Pingora"], rows)


def brief(cell):
    if cell.figure.shows == LATENCY:
        return " / ".join(f"{cell.latency(quantile):.2f}" for quantile in ("p50", "p99", "p99_9")) + " ms"
    return f"{cell.value / 1e9:.2f} GB/s" if cell.figure.shows in (RECEIVED, SENT) else f"{cell.value:,.0f}"


def two_cores(run):
    rows = []
    for figure in figures.TWO_CORES:
        if any(run.samples(figure.key, proxy) for proxy in run.proxies):
            rows.append([figure.name, *cells(run, figure)])
    return rows and ["Proxy, generator and upstream share both cores:", "", *markdown(["", *(TITLES[proxy] for proxy in run.proxies)], rows)]


def memory(run):
    def row(name, figure, key, shown):
        values = {proxy: [s[key] for s in run.samples(figure, proxy)] for proxy in run.proxies}
        return [name, *(shown(statistics.median(values[proxy])) if values[proxy] else NONE for proxy in run.proxies)]

    def idle(key):
        def shown(samples):
            failed = sum(s["failed"] for s in samples)
            return f"{statistics.median(s[key] for s in samples):.1f} KB" + (f" **{failed} failed**" if failed else "")

        found = {proxy: run.samples(figures.IDLE, proxy) for proxy in run.proxies}
        return [shown(found[proxy]) if found[proxy] else NONE for proxy in run.proxies]

    rows = [
        row("memory at start", figures.START, "megabytes", lambda value: f"{value:.1f} MB"),
        ["an idle connection that made a request", *idle("requested_kb")],
        ["an idle connection that made none", *idle("opened_kb")],
        row("stripped binary", figures.BINARY, "megabytes", lambda value: f"{value:.1f} MB"),
    ]
    bars = ("≤ 12 MB", "≤ 12 KB", NONE, "≤ 20 MB")
    rows = [[*row, bar] for row, bar in zip(rows, bars) if any(cell != NONE for cell in row[1:])]
    return rows and markdown(["", *(TITLES[proxy] for proxy in run.proxies), "bar of the gateway"], rows)


def rotation(run):
    rows = []
    for proxy in run.proxies:
        samples = run.samples(figures.ROTATION, proxy)
        if not samples:
            continue
        live = sorted(value for s in samples for value in s["live_microseconds"] if value is not None)
        missed = sum(value is None for s in samples for value in s["live_microseconds"])
        failed = sum(s["failed"] for s in samples)
        retried = sum(s["retried"] for s in samples)
        tail = statistics.median(s["latency_microseconds"]["p99_9"] for s in samples) / 1000
        still = run.cell(next(figure for figure in figures.ROUNDS if figure.key == "open-5000"), proxy)
        rows.append([
            TITLES[proxy], f"{failed}", f"{retried}", f"{sum(s['probes_failed'] for s in samples)}",
            f"{statistics.median(live) / 1000:.2f} / {live[-1] / 1000:.2f} ms" if live else NONE, f"{missed}",
            f"{tail:.3f} ms", f"{still.latency('p99_9'):.3f} ms" if still else NONE,
        ])  # fmt: skip
    heads = ["", "failed requests", "sent again", "failed handshakes", "live after: median / most", "not live within 1 s", "p99.9 at 5,000/s", "the same, no rotation"]
    return rows and ["A new certificate each second:", "", *markdown(heads, rows)]


def epoch(run):
    """A row for each change that signet-bench-epoch made."""
    rows = []
    for sample in run.samples(figures.EPOCH, "gateway"):
        found = sample["report"]
        for key, name in (("authority_added", "an authority is added"), ("authority_removed", "another one is removed")):
            change = found[key]
            rows.append([f"{name}, {found['connections']:,} connections", f"{change['judged_ms']:.1f} ms", f"{change['longest_echo_ms']:.1f} ms", f"{found['quiet']['longest_echo_ms']:.1f} ms"])
    heads = ["a change of trust", "until all are judged (bar: 100 ms)", "longest wait of a request meanwhile (bar: 5 ms)", "the same without a change"]
    return rows and markdown(heads, rows)


def growth(run):
    lines = []
    for what, steps in figures.GROWTH.items():
        found = {s["step"]: s for s in run.samples(f"growth-{what}", "gateway")}
        if found:
            row = [f"CPU of the gateway by {what}", *(micros(found[step]["proxy_cpu_microseconds"]) if step in found else NONE for step in steps)]
            lines += ["", *markdown(["", *(f"{step:,}" for step in steps)], [row])]
    return lines[1:]


def markdown(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


# benches/RESULTS.md


def results_page(runs, files):
    lines = ["# Results", "", "Made by `benches/compare/report.py results`; do not edit. What was found is in `benches/compare/findings.md`; the issuer's tables are by `benches/issuer/run` and `benches/authorities/run`.", ""]
    findings = HERE / "findings.md"
    if findings.exists():
        lines += [findings.read_text().rstrip(), ""]
    for title, name in (("The issuer", "issuer.md"), ("Revocation and rotation", "authorities.md")):
        written = HERE.parent / "results" / name
        if written.exists():
            lines += [f"## {title}", "", written.read_text().rstrip(), ""]
    for number, (results, file) in enumerate(zip(runs, files), 1):
        machine, settings = results["machine"], results["settings"]
        lines += [
            f"## Run {number}: {results['date']}",
            "",
            f"`ROUNDS={settings['rounds']} SECONDS_EACH={settings['seconds_each']:g} benches/compare/run` at commit {results['commit']}, "
            f"all figures in [`{pathlib.Path(file).name}`](results/{pathlib.Path(file).name})",
            "",
            f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['system']}; "
            + "; ".join(f"{TITLES[proxy]} {version}" for proxy, version in results["versions"].items()),
            "",
            *table(results),
            "",
        ]
    return lines[:-1]


if __name__ == "__main__":
    main()
