"""Measures the proxies side by side and writes one results file; `run` builds what this needs and calls it.

The proxy has core 0; generator and upstream share core 1. Only what one run measured is comparable.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import figures
import processes
import proxies
from processes import Failed, Server

PROXY_CORE, LOAD_CORE, BOTH_CORES = "0", "1", "0,1"
SMALL_FLEET = 64
SETTLE_SECONDS = 2.0
# Idle connections, and each proxy's own reserve.
FILES = 131_072


@dataclasses.dataclass
class Paths:
    work: pathlib.Path
    bin: pathlib.Path
    envoy: pathlib.Path
    pingora: pathlib.Path


def main():
    options = arguments()
    allow_open_files(FILES)
    comparison = Comparison(options)
    try:
        comparison.prepare()
        comparison.check_refusals()
        for number in range(1, options.rounds + 1):
            comparison.round(number)
        comparison.stop_all()
        comparison.once()
    finally:
        comparison.end()
        if not options.keep:
            shutil.rmtree(comparison.paths.work, ignore_errors=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(comparison.results, indent=1) + "\n")
    say(f"{options.out}")


def allow_open_files(wanted):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError):
        # Not root: what is allowed has to do.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of our release builds")
    parser.add_argument("--envoy", type=pathlib.Path, required=True)
    parser.add_argument("--pingora", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="results file, JSON")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for keys, configurations and logs")
    parser.add_argument("--keep", action="store_true", help="leave that folder when done")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds-each", type=float, default=3)
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections")
    parser.add_argument("--rotations", type=int, default=10)
    parser.add_argument("--proxies", nargs="+", default=list(proxies.ALL), choices=proxies.ALL)
    parser.add_argument("--figures", nargs="+", default=list(figures.ALL_KEYS), choices=figures.ALL_KEYS, metavar="FIGURE")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


class Comparison:
    def __init__(self, options):
        self.options = options
        self.paths = Paths(options.work, options.bin, options.envoy, options.pingora)
        self.pki = options.work / "pki"
        self.proxies = [proxies.ALL[name](self.paths) for name in options.proxies]
        self.servers = {}
        self.origins = {}
        self.samples = []
        self.results = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": command_output("git", "rev-parse", "--short", "HEAD"),
            "machine": machine(),
            "settings": {"rounds": options.rounds, "seconds_each": options.seconds_each},
            "versions": {proxy.name: proxy.version() for proxy in self.proxies},
            "samples": self.samples,
            "not_measured": [],
        }

    def wants(self, key):
        return key in self.options.figures

    def prepare(self):
        self.paths.work.mkdir(parents=True, exist_ok=True)
        run([self.paths.bin / "signet-bench-pki", self.pki, "--clients", 1000])
        self.small_fleet = first_clients(self.pki, SMALL_FLEET)
        origin = self.paths.bin / "signet-bench-origin"
        tls = ["--cert", self.pki / "origin/server.pem", "--key", self.pki / "origin/server.key", "--roots", self.pki / "roots.pem"]
        for kind, more in (
            (proxies.PLAIN, []),
            (proxies.MTLS, [*tls, "--offer", "http1"]),
            (proxies.MTLS_HTTP2, [*tls, "--offer", "http2"]),
        ):
            address = processes.free_address()
            server = Server(f"origin-{kind}", [origin, address, *more], LOAD_CORE, self.paths.work)
            server.wait_until_listening(address)
            server.address = address
            self.origins[kind] = server

    def server(self, proxy, upstream):
        """The process of this proxy with this kind of upstream, started when first wanted."""
        key = (proxy.name, upstream)
        if key not in self.servers:
            name = f"{proxy.name}-{upstream}"
            self.servers[key] = proxy.start(name, self.pki, self.origins[upstream].address, upstream, cores=PROXY_CORE)
        return self.servers[key]

    def stop_all(self):
        for server in self.servers.values():
            server.stop()
        self.servers.clear()

    def end(self):
        self.stop_all()
        for server in self.origins.values():
            server.stop()

    # Refusals

    def check_refusals(self):
        """A proxy that lets strangers in is not measured."""
        foreign = self.pki / "foreign"
        friend = self.pki / "clients/cur/0000.pem"
        for proxy in self.proxies:
            for upstream in proxy.upstreams:
                address = self.server(proxy, upstream).address
                for who, chain, expected in (
                    ("a client with a certificate", friend, True),
                    ("a client without a certificate", None, False),
                    ("a client of another CA", foreign / "client.pem", False),
                ):
                    answered, why = self.asks(address, chain)
                    if answered != expected:
                        raise Failed(f"{proxy.name} ({upstream}) {'answers' if answered else 'refuses'} {who}: {why}")
        self.results["refused"] = ["a client without a certificate", "a client of another CA"]
        say("each proxy answers a client with a certificate, and refuses one without and one of another CA")

    def asks(self, address, chain):
        """Whether a client with this certificate gets an answer."""
        context = ssl.create_default_context(cafile=str(self.pki / "roots.pem"))
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if chain:
            context.load_cert_chain(str(chain), str(chain.with_suffix(".key")))
        host, port = address.rsplit(":", 1)
        try:
            with socket.create_connection((host, int(port)), timeout=5) as tcp, context.wrap_socket(tcp) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                answer = tls.recv(4096)
                return answer.startswith(b"HTTP/1.1 200"), answer[:60]
        except OSError as error:
            return False, error

    # Rounds

    def round(self, number):
        for figure in figures.ROUNDS:
            if not self.wants(figure.key):
                continue
            for proxy in self.proxies:
                if figure.upstream in proxy.upstreams and (proxy.hybrid or not figure.needs_hybrid):
                    server, origin = self.server(proxy, figure.upstream), self.origins[figure.upstream]
                    self.sample(figure, proxy.name, number, server, origin)

    def sample(self, figure, proxy, number, server, origin, cores=LOAD_CORE, pki=None, **more):
        report = self.load(figure.load, server, origin, figure.fleet, cores, figure.warmup, pki)
        sample = {"figure": figure.key, "proxy": proxy, "round": number, **more, **summary(report)}
        self.samples.append(sample)
        shown = f"{sample.get('per_second', 0):>10.0f}/s  proxy {sample.get('proxy_cores') or 0:.2f}  load {sample.get('load_cores') or 0:.2f}"
        say(f"{number} {figure.key:<16} {proxy:<8} {shown}  failed {sample.get('failed')}")
        return sample

    def load(self, what, server, origin, fleet="all", cores=LOAD_CORE, warmup=0.5, pki=None):
        pki = pki or self.pki
        identities = pki / "clients/cur" if fleet == "all" else self.small_fleet
        mode, *arguments = what
        command = [
            "taskset", "-c", cores, self.paths.bin / "signet-load", mode, server.address, *arguments,
            "--identities", identities, "--roots", pki / "roots.pem", "--json",
            "--warmup", warmup, "--duration", self.options.seconds_each, "--proof", server.proof,
            "--watch", "proxy=" + ",".join(map(str, server.processes())),
            "--watch", "origin=" + ",".join(map(str, origin.processes())),
        ]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=180)
        try:
            return json.loads(done.stdout)
        except ValueError:
            say(f"signet-load {mode} against {server.name}: {done.stderr.strip()}")
            return None

    # Once in a run

    def once(self):
        if self.wants("two-cores"):
            for figure in figures.TWO_CORES:
                for proxy in self.proxies:
                    self.attempt(self.two_cores, figure, proxy)
        for proxy in self.proxies:
            if self.wants(figures.BINARY) and proxy.name == "gateway":
                size = pathlib.Path(proxy.binary()).stat().st_size
                self.value(figures.BINARY, proxy.name, megabytes=size / 1e6)
            if self.wants(figures.IDLE) or self.wants(figures.START):
                self.attempt(self.memory, proxy)
            if self.wants(figures.ROTATION) and proxy.reload:
                self.attempt(self.rotation, proxy)
        gateway = [proxy for proxy in self.proxies if proxy.name == "gateway"]
        for proxy in gateway:
            self.attempt(self.growth, proxy)
        if gateway and self.wants(figures.EPOCH):
            self.attempt(self.epoch)

    def attempt(self, measure, *arguments):
        """What cannot be measured is told, and costs nobody what was measured before."""
        try:
            measure(*arguments)
        except (Failed, OSError, ValueError, subprocess.SubprocessError) as failure:
            about = " ".join(getattr(argument, "name", "") for argument in arguments)
            self.results["not_measured"].append(f"{measure.__name__} {about}: {failure}")
            say(f"not measured: {measure.__name__} {about}: {failure}")

    def value(self, figure, proxy, **values):
        self.samples.append({"figure": figure, "proxy": proxy, "round": 1, **values})
        say(f"1 {figure:<16} {proxy:<8} " + "  ".join(f"{name} {value:.1f}" for name, value in values.items() if value is not None))

    def two_cores(self, figure, proxy):
        origin = self.origins[proxies.PLAIN]
        server = proxy.start(f"{proxy.name}-two", self.pki, origin.address, workers=figure.workers, cores=BOTH_CORES)
        try:
            self.sample(figure, proxy.name, 1, server, origin, cores=BOTH_CORES)
        finally:
            server.stop()

    def memory(self, proxy):
        """Of the start, and of idle connections, without and with a request made on each."""
        server = proxy.start(f"{proxy.name}-idle", self.pki, self.origins[proxies.PLAIN].address, cores=PROXY_CORE)
        try:
            time.sleep(1)
            at_start = server.rss()
            self.value(figures.START, proxy.name, megabytes=at_start / 1e6)
            if not self.wants(figures.IDLE):
                return
            command = [
                "taskset", "-c", LOAD_CORE, self.paths.bin / "signet-load", "idle", server.address, "-c", self.options.idle,
                "--curve", "x25519", "--proof", server.proof, "--identities", self.pki / "clients/cur", "--roots", self.pki / "roots.pem",
            ]  # fmt: skip
            held = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            found = {}
            for step in ("opened", "requested"):
                said = held.stdout.readline().split()
                if not said or said[0] != step:
                    raise Failed(f"signet-load idle against {proxy.name}: {said}")
                time.sleep(SETTLE_SECONDS)
                found[f"{step}_kb"] = (server.rss() - at_start) / max(int(said[1]), 1) / 1e3
                found["failed"] = int(said[3])
                held.stdin.write("\n")
                held.stdin.flush()
            held.communicate(timeout=30)
            self.value(figures.IDLE, proxy.name, **found)
        finally:
            server.stop()

    def rotation(self, proxy):
        """A new certificate each second under load, and the proxy told of each."""
        pki = self.paths.work / f"rotating-{proxy.name}"
        server = None
        listen = processes.free_address()
        rotating = subprocess.Popen(
            list(map(str, [
                "taskset", "-c", LOAD_CORE, self.paths.bin / "signet-bench-pki", pki, "--clients", SMALL_FLEET,
                "--rotate", 1000, "--rotations", self.options.rotations, "--probe", listen,
            ])),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            rotating.stdout.readline()
            origin = self.origins[proxies.PLAIN]
            server = proxy.start(f"{proxy.name}-rotation", pki, origin.address, cores=PROXY_CORE, listen=listen)
            load = subprocess.Popen(
                list(map(str, [
                    "taskset", "-c", LOAD_CORE, self.paths.bin / "signet-load", "http1", server.address, "-c", 64, "--rate", 5000, "--curve", "x25519",
                    "--identities", pki / "clients/cur", "--roots", pki / "roots.pem", "--json",
                    "--warmup", 0.5, "--duration", self.options.rotations + 0.5,
                ])),
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            probes = []
            for line in rotating.stdout:
                if line.strip() == "published":
                    proxy.reload(server)
                else:
                    probes.append(json.loads(line))
            report = json.loads(load.communicate(timeout=60)[0])
            self.samples.append({
                "figure": figures.ROTATION, "proxy": proxy.name, "round": 1,
                "live_microseconds": [probe["begun_after_microseconds"] for probe in probes],
                "done_microseconds": [probe["done_after_microseconds"] for probe in probes],
                "probes_failed": sum(probe["failed"] for probe in probes),
                **summary(report),
            })  # fmt: skip
            live = [probe["begun_after_microseconds"] for probe in probes]
            shown = ", ".join("never" if micros is None else f"{micros / 1000:.2f}" for micros in live)
            say(f"1 {'rotation':<16} {proxy.name:<8} live after {shown} ms, failed {report['failed']}, retried {report['retried']}")
        finally:
            rotating.kill()
            rotating.wait()
            if server:
                server.stop()

    def epoch(self):
        """What a change of trust costs a gateway full of connections; the program brings its own gateway."""
        program = self.paths.bin / "signet-bench-epoch"
        if not program.exists():
            say("no signet-bench-epoch: the change of trust is not measured")
            return
        command = [str(program), "--json", "-c", str(self.options.idle)]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            found, errors = running.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            # With its gateway.
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            raise
        if running.returncode:
            raise Failed(errors.strip())
        self.samples.append({"figure": figures.EPOCH, "proxy": "gateway", "round": 1, "report": json.loads(found)})
        say(f"1 {figures.EPOCH:<16} gateway  {' '.join(found.split())}")

    def growth(self, proxy):
        origin = self.origins[proxies.PLAIN]
        for what, steps in figures.GROWTH.items():
            key = f"growth-{what}"
            if not self.wants(key):
                continue
            for step in steps:
                options, pki, load = {}, self.pki, figures.http1(64)
                warmup = 0.5
                if what == "connections":
                    load, warmup = figures.http1(step, "--rate", 3000), 1.5 + step / 2500
                elif what == "rules":
                    options["allow"] = [f"spiffe://example.org/other-{number}/**" for number in range(step - 1)] + ["spiffe://example.org/bench/**"]
                else:
                    load = ("handshake", "-c", 16, "--curve", "x25519")
                    pki, warmup = self.pki_with(step), 1 + step / 1000
                server = proxy.start(f"{proxy.name}-growth", pki, origin.address, cores=PROXY_CORE, **options)
                try:
                    figure = figures.Figure(key, key, load, warmup=warmup)
                    self.sample(figure, proxy.name, 1, server, origin, pki=pki, step=step)
                finally:
                    server.stop()

    def pki_with(self, clients):
        pki = self.paths.work / f"pki-{clients}"
        if not pki.exists():
            run([self.paths.bin / "signet-bench-pki", pki, "--clients", clients])
        return pki


def summary(report):
    """Of a report of signet-load what the tables need."""
    if report is None:
        return {"failed": None}
    watched = report.get("watched", {})
    proxy, origin = watched.get("proxy", {}), watched.get("origin", {})
    generator = report["generator_cores"] or 0
    return {
        "per_second": report["operations_per_second"],
        "received_per_second": report["received_bytes_per_second"],
        "sent_per_second": report["sent_bytes_per_second"],
        "latency_microseconds": report["latency_microseconds"],
        "failed": report["failed"],
        "failures": report["failures"],
        "retried": report["retried"],
        "full_handshakes": report["full_handshakes"],
        "resumed_handshakes": report["resumed_handshakes"],
        "proxy_cpu_microseconds": proxy.get("cpu_microseconds_per_operation"),
        "proxy_cores": proxy.get("cores"),
        "generator_cores": generator,
        "load_cores": generator + (origin.get("cores") or 0),
    }


def machine():
    model = [line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    system = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "system": system.get("PRETTY_NAME", "unknown").strip('"'),
    }


def command_output(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=pathlib.Path(__file__).parent)
    return done.stdout.strip()


def first_clients(pki, count):
    folder = pki / f"first-{count}"
    folder.mkdir()
    for file in sorted((pki / "clients/cur").iterdir())[: 2 * count]:
        shutil.copy(file, folder)
    return folder


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"error: {failure}")
