"""The proxies: how each is configured, started, and told of a new certificate."""

import json
import os
import pathlib
import signal
import socket
import subprocess

import processes

HERE = pathlib.Path(__file__).resolve().parent

# What stands behind a proxy: plain HTTP/1.1, or mTLS with HTTP/1.1 or HTTP/2.
PLAIN, MTLS, MTLS_HTTP2 = "plain", "mtls-h1", "mtls-h2"


def fill(template, values, upstream):
    """Replaces `@NAME@`, and keeps of the lines that begin with `@KIND@` those of this kind of upstream."""
    kinds = {upstream} | ({"mtls"} if upstream != PLAIN else set())
    lines = []
    for line in template.splitlines():
        marked = [kind for kind in (PLAIN, "mtls", MTLS, MTLS_HTTP2) if line.startswith(f"@{kind}@")]
        if marked and marked[0] not in kinds:
            continue
        lines.append(line[len(marked[0]) + 2 :] if marked else line)
    text = "\n".join(lines) + "\n"
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def edited(text, what, by):
    if text.count(what) != 1:
        raise processes.Failed(f"the gateway's configuration has not one `{what}`; proxies.py edits it there")
    return text.replace(what, by)


class Proxy:
    """One kind of proxy. `is_peer`: whether the bars are set by it."""

    is_peer = True
    upstreams = (PLAIN,)
    hybrid = True
    # How signet-load knows that a handshake was accepted.
    proof = "ticket"

    def __init__(self, paths):
        self.paths = paths

    def start(self, name, pki, upstream_address, upstream=PLAIN, workers=1, cores="0", listen=None, **options):
        """A new process of it, listening."""
        work = self.paths.work / name
        work.mkdir(parents=True, exist_ok=True)
        listen = listen or processes.free_address()
        values = {
            "PKI": pki,
            "WORK": work,
            "WORKERS": workers,
            "LISTEN": listen,
            "LISTEN_PORT": listen.rsplit(":", 1)[1],
            "UPSTREAM": upstream_address,
            "UPSTREAM_PORT": upstream_address.rsplit(":", 1)[1],
            **options,
        }
        command = self.command(work, values, upstream, workers)
        server = processes.Server(name, command, cores, self.paths.work)
        server.work, server.pki, server.address, server.proof = work, pki, listen, self.proof
        return server.wait_until_listening(listen)

    def command(self, work, values, upstream, workers):
        raise NotImplementedError

    reload = None

    def configure(self, template, target, values, upstream):
        target.write_text(fill((HERE / template).read_text(), values, upstream))
        return target


class Gateway(Proxy):
    name = "gateway"
    is_peer = False
    upstreams = (PLAIN, MTLS, MTLS_HTTP2)

    # Of gateway.yaml.in, what differs where not the plain user's gateway is measured.
    ADMIN = "admin: 127.0.0.1:0"
    ALLOW = 'allow: ["spiffe://example.org/**"]'
    ADDRESS = 'address: "@UPSTREAM@"'

    def command(self, work, values, upstream, workers):
        text = (HERE / "gateway.yaml.in").read_text()
        if workers != 1:
            text = edited(text, self.ADMIN, f"{self.ADMIN}\nworkers: {workers}")
        if "allow" in values:
            text = edited(text, self.ALLOW, f"allow: {json.dumps(values['allow'])}")
        if upstream != PLAIN:
            text = edited(text, self.ADDRESS, f'{self.ADDRESS}, identity: ["spiffe://example.org/bench/origin"]')
        scheme = "http" if upstream == PLAIN else "mtls"
        config = work / "gateway.yaml"
        config.write_text(fill(text, {**values, "UPSTREAM": f"{scheme}://{values['UPSTREAM']}"}, upstream))
        return [self.binary(), "--config", config]

    def binary(self):
        return os.environ.get("GATEWAY", self.paths.bin / "signet-gateway")

    def version(self):
        return processes.version([str(self.binary()), "--version"])

    def reload(self, server):
        """It sees the files change."""


class Hyper(Proxy):
    name = "hyper"
    is_peer = False

    def command(self, work, values, upstream, workers):
        live = pathlib.Path(values["PKI"]) / "live/cur"
        return [
            self.binary(), values["LISTEN"], values["UPSTREAM"], "--threads", workers,
            "--cert", live / "server.pem", "--key", live / "server.key", "--roots", pathlib.Path(values["PKI"]) / "roots.pem",
        ]  # fmt: skip

    def binary(self):
        return self.paths.bin / "signet-bench-hyper-proxy"

    def version(self):
        return "of this commit"


class Nginx(Proxy):
    name = "nginx"
    upstreams = (PLAIN, MTLS)
    hybrid = False

    def command(self, work, values, upstream, workers):
        return ["nginx", "-p", work, "-c", self.configure("peers/nginx.conf.in", work / "nginx.conf", values, upstream)]

    def binary(self):
        return "/usr/sbin/nginx"

    def version(self):
        said = subprocess.run(["nginx", "-V"], capture_output=True, text=True, timeout=20).stderr.splitlines()
        running = said[1].rpartition("running with ")[2].rstrip(")") if "running with" in said[1] else said[1]
        return said[0].rpartition("/")[2] + ", " + " ".join(running.removeprefix("built with ").split()[:2])

    def reload(self, server):
        os.kill(server.process.pid, signal.SIGHUP)


class Haproxy(Proxy):
    name = "haproxy"
    upstreams = (PLAIN, MTLS, MTLS_HTTP2)
    hybrid = False

    def command(self, work, values, upstream, workers):
        (work / "haproxy.pem").write_text(self.pair(values["PKI"]))
        return ["haproxy", "-db", "-f", self.configure("peers/haproxy.cfg.in", work / "haproxy.cfg", values, upstream)]

    def pair(self, pki):
        live = pathlib.Path(pki) / "live/cur"
        return (live / "server.pem").read_text() + (live / "server.key").read_text()

    def binary(self):
        return "/usr/sbin/haproxy"

    def version(self):
        said = subprocess.run(["haproxy", "-vv"], capture_output=True, text=True, timeout=20).stdout
        library = [line.rpartition(": ")[2] for line in said.splitlines() if line.startswith("Running on OpenSSL")]
        return said.split()[2].split("-")[0] + ", " + " ".join((library or ["OpenSSL unknown"])[0].split()[:2])

    def reload(self, server):
        """By its command line, which is faster than a reload and drops nothing."""
        name = server.work / "haproxy.pem"
        for command in (f"set ssl cert {name} <<\n{self.pair(server.pki)}\n", f"commit ssl cert {name}\n"):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(server.work / "haproxy.sock"))
                line.sendall(command.encode())
                answer = b""
                while part := line.recv(4096):
                    answer += part
            if not any(word in answer for word in (b"Transaction created", b"Success")):
                raise processes.Failed(f"haproxy: {answer.decode(errors='replace')}")


class Envoy(Proxy):
    name = "envoy"
    # BoringSSL keeps its tickets back until there is an answer to send.
    proof = "close"
    upstreams = (PLAIN, MTLS, MTLS_HTTP2)

    def command(self, work, values, upstream, workers):
        self.configure("peers/envoy-sds.yaml.in", work / "envoy-sds.yaml", values, upstream)
        config = self.configure("peers/envoy.yaml.in", work / "envoy.yaml", values, upstream)
        return [self.binary(), "-c", config, "--concurrency", workers, "--disable-hot-restart", "-l", "error"]

    def binary(self):
        return self.paths.envoy

    def version(self):
        # PATH  version: COMMIT/VERSION/Clean/RELEASE/BoringSSL
        return processes.version([str(self.binary()), "--version"]).split("version:")[1].split("/")[1] + ", BoringSSL"

    def reload(self, server):
        """It sees the link change."""


class Pingora(Proxy):
    name = "pingora"
    upstreams = (PLAIN, MTLS)

    def command(self, work, values, upstream, workers):
        mtls = [] if upstream == PLAIN else ["mtls"]
        return [self.binary(), values["LISTEN"], values["UPSTREAM"], values["PKI"], workers, *mtls]

    def binary(self):
        return self.paths.pingora

    def version(self):
        lock = (HERE / "peers/pingora/Cargo.lock").read_text().split("[[package]]")
        packages = dict(part.split('"')[1:4:2] for part in lock[1:])
        return f"{packages['pingora']}, rustls {packages['rustls']}"


ALL = {kind.name: kind for kind in (Gateway, Hyper, Nginx, Haproxy, Envoy, Pingora)}
