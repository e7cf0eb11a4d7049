"""Processes of a comparison: started on a core, watched by `/proc`, and ended."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A process did not do what the comparison needs."""


class Server:
    """A process with its children, pinned to cores, that listens on an address."""

    def __init__(self, name, command, cores, folder):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", cores, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_listening(self, address, patience=20.0):
        host, port = address.rsplit(":", 1)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        raise Failed(f"{self.name} does not listen on {address}\n{self.log.read_text(errors='replace')[-2000:]}")

    def processes(self):
        """Its process IDs, children included, as they are now."""
        found, to_see = [], [self.process.pid]
        while to_see:
            pid = to_see.pop()
            found.append(pid)
            for tasks in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    to_see += map(int, tasks.read_text().split())
                except OSError:
                    pass
        return found

    def rss(self):
        """Resident bytes of all its processes."""
        total = 0
        for pid in self.processes():
            try:
                total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            except OSError:
                pass
        return total

    def stop(self):
        pids = self.processes()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


def free_address():
    """An address that is free now, for a server that must know it before it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def version(command):
    """The first line that has a digit of what a program says about itself."""
    if shutil.which(command[0]) is None and not pathlib.Path(command[0]).exists():
        return "not there"
    said = subprocess.run(command, capture_output=True, text=True, timeout=20)
    lines = [line.strip() for line in (said.stdout + said.stderr).splitlines() if any(map(str.isdigit, line))]
    return lines[0] if lines else "unknown"
