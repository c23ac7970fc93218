"""A Docker Engine of a test's own, to be killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors
import requests

_READY_S = 60.0


class OwnEngine:
    """An engine with its own data, beside that of the other tests. Its containers have no network."""

    def __init__(self) -> None:
        # Short, since the names of sockets below it may have 107 bytes.
        self._root = Path(tempfile.mkdtemp(prefix="bd-"))
        self.address = f"unix://{self._root}/sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        # Where process 1 reaps nobody, the engine takes the zombie of its predecessor's containerd for alive.
        (self._root / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # In a network of its own: an engine without a bridge removes that of the others.
                    *("unshare", "--net", "dockerd", "--host", self.address, "--pidfile", f"{self._root}/pid"),
                    *("--data-root", f"{self._root}/data", "--exec-root", f"{self._root}/exec"),
                    *("--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.client().close()
                return
            except (docker.errors.DockerException, requests.exceptions.RequestException):
                time.sleep(0.05)
        raise AssertionError(f"the engine did not start:\n{(self._root / 'log').read_text()[-4000:]}")

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(self.address, version="auto", timeout=30)

    def kill(self, *, with_containers: bool = False) -> None:
        """Kill it. What it runs lives on until it is back, unless that is killed, too, as when a host crashes."""
        assert self._process is not None
        own = self.client()
        processes = [container.attrs["State"]["Pid"] for container in own.containers.list(ignore_removed=True)]
        own.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        # 0 is a container that has just ended, and to kill() it is everybody.
        for process in filter(None, processes if with_containers else ()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def copy_image(self, name: str) -> None:
        """Take an image over from the engine of the other tests."""
        source, own = docker.from_env(), self.client()
        own.images.load(b"".join(source.images.get(name).save(named=True)))
        source.close()
        own.close()

    def leftovers(self) -> list[str]:
        """The names of all containers and volumes that it has."""
        own = self.client()
        found = [item.name for item in own.containers.list(all=True)] + [item.name for item in own.volumes.list()]
        own.close()
        return sorted(map(str, found))

    def close(self) -> None:
        """End it with all that it has."""
        if self._process is not None and self._process.poll() is None:
            own = self.client()
            for container in own.containers.list(all=True):
                container.remove(force=True)
            own.close()
            self._process.terminate()
            self._process.wait(timeout=30)
        self._end_processes()
        subprocess.run(["umount", "--lazy", f"{self._root}/data"], capture_output=True, check=False)
        shutil.rmtree(self._root, ignore_errors=True)

    def processes(self) -> list[int]:
        """What still runs of it: itself, its containerd, those that keep its containers, and what they keep."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                # Of a zombie there are no words left.
                if entry.name.isdigit() and f"{self._root}/".encode() in (entry / "cmdline").read_bytes():
                    found += [*_descendants(int(entry.name)), int(entry.name)]
        return found

    def _end_processes(self) -> None:
        """An engine that was killed leaves behind what its successor does not find again."""
        while remaining := self.processes():
            for process in remaining:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += [*_descendants(int(child)), int(child)]
    return found
