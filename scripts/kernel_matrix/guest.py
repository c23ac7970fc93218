"""A virtual machine that boots a kernel and runs what it is sent: qemu, its console, and the disk of its replies."""

from __future__ import annotations

import base64
import os
import queue
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kernel_matrix.boot import initramfs, kernel_image, kernel_modules
from kernel_matrix.kernels import Kernel

_INIT = Path(__file__).parent / "init.sh"
_BOOT_LIMIT_S = 300
_REPLY_DISK_BYTES = 512 << 20
_MEMORY_MIB = 2048


class GuestFailed(Exception):
    """The machine did not boot, or does not answer any more; the text has the end of its console."""


@dataclass
class Guest:
    """A machine that runs. One request at a time."""

    kernel: Kernel
    directory: Path
    _process: subprocess.Popen[bytes]
    _answers: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _requests: int = 0

    def ask(self, script: str, into: Path, *, limit_s: float = 300) -> int:
        """Run a shell script in the machine and return its exit code; what it leaves in /reply goes to ``into``.

        There ``said`` has its output. Raises :class:`GuestFailed`.
        """
        self._requests += 1
        request = f"{self._requests} {base64.b64encode(script.encode()).decode()}\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise GuestFailed(self._last_words("the machine is gone")) from None
        answer = self._wait_answer(rf"done {self._requests} (\d+)", limit_s)
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        with tarfile.open(self.directory / "reply.img") as tar:
            tar.extractall(into, filter="tar")
        return int(answer[1])

    def run_session(
        self, volume: Path, command: list[str], *, options: Mapping[str, str], wishes: list[str], limit_s: int
    ) -> None:
        """Run a command in a container under the tracer, with ``wishes`` as more of the tracer's arguments.

        ``options`` are those of session.c. What a session leaves in its volume goes to ``volume``.
        """
        work = f"/disk/work/{self._requests}"
        words = ["/bin/session", "--volume", "/reply", "--work", work, "--limit", str(limit_s)]
        words += [word for name, value in options.items() for word in (f"--{name}", value)]
        words += [word for wish in wishes for word in ("--wish", wish)]
        self.ask(f"mkdir -p /disk/work; {shlex.join([*words, '--', *command])}; rm -rf {work} /reply/.gate", volume,
                 limit_s=limit_s + 120)  # fmt: skip

    def wait_ready(self) -> None:
        self._wait_answer("ready", _BOOT_LIMIT_S)

    def _wait_answer(self, pattern: str, limit_s: float) -> re.Match[str]:
        end = time.monotonic() + limit_s
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise GuestFailed(self._last_words(f"no answer in {limit_s:.0f} s")) from None
            if answer is None:
                raise GuestFailed(self._last_words("the machine has stopped"))
            match = re.fullmatch(pattern, answer)
            if match:
                return match

    def _read_console(self) -> None:
        assert self._process.stdout is not None
        with (self.directory / "console.txt").open("wb") as console:
            for line in self._process.stdout:
                console.write(line)
                console.flush()
                marked = re.search(rb"@@([^\r\n]+)", line)
                if marked:
                    self._answers.put(marked[1].decode(errors="replace"))
        self._answers.put(None)

    def _last_words(self, what: str) -> str:
        lines = (self.directory / "console.txt").read_text(errors="replace").splitlines()
        return "\n    ".join([what, *[line for line in lines if line.strip()][-12:]])


@contextmanager
def open_guest(
    kernel: Kernel, package: Path, directory: Path, *, files: Mapping[str, bytes], disk: Path
) -> Iterator[Guest]:
    """Boot a kernel with ``files`` in its memory and ``disk``, an ext4, which is not changed.

    ``directory`` is for the console's text and the replies. Leaving ends the machine. Raises :class:`GuestFailed`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    image, packed, replies = (directory / name for name in ("kernel", "initramfs", "reply.img"))
    image.write_bytes(kernel_image(package))
    packed.write_bytes(initramfs({"init": _INIT.read_bytes(), **files}, kernel_modules(package)))
    with replies.open("wb") as file:
        file.truncate(_REPLY_DISK_BYTES)
    # No machine outlives this process. One thread emulates both processors: with a thread for each, older emulators
    # lose races with code that the kernel patches while the other processor runs it.
    command = [
        "setpriv", "--pdeathsig", "KILL", *kernel.arch.qemu,
        "-accel", "tcg,thread=single", "-smp", "2", "-m", str(_MEMORY_MIB),
        "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(image), "-initrd", str(packed),
        "-append", f"console={kernel.arch.console} panic=-1 loglevel=4",
        *_drive(disk, 0, "snapshot=on"), *_drive(replies, 1),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    guest = Guest(kernel, directory, process)
    reader = threading.Thread(target=guest._read_console, name=f"console of {kernel.name}")
    reader.start()
    try:
        guest.wait_ready()
        yield guest
    finally:
        process.kill()
        process.wait()
        reader.join()
        for path in (image, packed, replies):
            path.unlink()


def _drive(path: Path, number: int, *options: str) -> list[str]:
    drive = ",".join([f"file={path}", "format=raw", "if=none", f"id=disk{number}", "cache=unsafe", *options])
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]


def make_disk(root: Path, disk: Path, size_mib: int) -> None:
    """Make an ext4 with the content of a directory."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(root), str(disk), f"{size_mib}M"],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path},
    )  # fmt: skip
