"""Bedrock's real processes, started and killed by tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

_READY_S = 30.0


def free_port() -> int:
    """A port that nobody listens on now; a process that is restarted needs the same one again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One Bedrock process. ``stop`` is SIGTERM and patience, ``kill`` is SIGKILL."""

    def __init__(self, module: str, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.module = module
        self._command = [sys.executable, "-m", module, *arguments, "--log-format", "json", "--log-level", "debug"]
        self._environment = {**os.environ, **environment}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        """Start it and return when it says that it is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            text = self.log.read_bytes()[offset:]
            if b'"event": "ready"' in text:
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{self.module} did not become ready:\n{self.log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, *, timeout_s: float) -> int:
        """Return its exit code once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def stop(self) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s=60)

    def peak_rss_bytes(self) -> int:
        """The most memory that it ever had resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def events(self) -> list[dict[str, object]]:
        """Its log, line by line."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Fleet:
    """An API, DockerDs and a FileMD that belong together, below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.http_port, self.socket_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.environment = {
            "BEDROCK_DATA_DIR": str(self.data_dir),
            "BEDROCK_API_HTTP_PORT": str(self.http_port),
            "BEDROCK_API_SOCKET_PORT": str(self.socket_port),
            "BEDROCK_DOCKERD_STOP_GRACE": "2s",
            "BEDROCK_URL": self.url,
        }
        self._started: list[Process] = []

    def process(self, module: str, *arguments: str, name: str | None = None) -> Process:
        log = self.directory / f"{name or module.removeprefix('bedrock.')}.log"
        process = Process(module, list(arguments), log, self.environment)
        self._started.append(process)
        return process

    def api(self) -> Process:
        return self.process("bedrock.api")

    def dockerd(self, name: str, *arguments: str) -> Process:
        return self.process("bedrock.dockerd", "--dockerd-name", name, *arguments, name=f"dockerd-{name}")

    def filemd(self) -> Process:
        return self.process("bedrock.filemd")

    def start(self, name: str = "alpha", *arguments: str) -> Process:
        """Start an API, a FileMD and a DockerD of this name with these arguments; return the DockerD."""
        self.api().start()
        self.filemd().start()
        return self.dockerd(name, *arguments).start()

    def command(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run ``bedrock ARGUMENTS`` against this fleet."""
        return subprocess.run(
            [sys.executable, "-m", "bedrock", *arguments],
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=timeout_s,
            check=False,
        )

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._started):
            if process._process is not None and process._process.poll() is None:
                process.stop()
