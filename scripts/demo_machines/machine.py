"""A virtual machine that runs what its second disk brings along: qemu, and its serial ports."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from demo_machines.disks import System

_MEMORY_MIB = 3072
_QUIET_S = 60
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class MachineFailed(Exception):
    """The machine did not come to the end of what it was to run; the text has the end of its console."""


def run_machine(system: System, media: Path, directory: Path, *, limit_s: float, show: Callable[[str], None]) -> int:
    """Boot a system whose disk stays as it is, run what ``media`` brings, and return its exit code.

    Each line that it prints goes to ``show``; after a minute without one, dots do, with the last line of the console if
    that is new. The console's text is in ``directory``. Raises :class:`MachineFailed`.
    """
    console, status = directory / "console.txt", directory / "status"
    # No machine outlives this process. One thread emulates both processors: with a thread for each, older emulators
    # lose races with code that the kernel patches while the other processor runs it.
    command = [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-cpu", "max",
        "-accel", "tcg,thread=single", "-smp", "2", "-m", str(_MEMORY_MIB),
        "-nodefaults", "-display", "none", "-no-reboot",
        "-serial", f"file:{console}", "-serial", "stdio", "-serial", f"file:{status}",
        "-kernel", str(system.kernel), "-initrd", str(system.initramfs), "-append", system.kernel_arguments,
        "-drive", f"file={system.disk},format=raw,if=virtio,cache=unsafe,snapshot=on",
        "-drive", f"file={media},format=raw,if=virtio,readonly=on",
        "-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), name="the machine's output")
    reader.start()
    try:
        follow(lines, console, limit_s, show)
    finally:
        process.kill()
        process.wait()
        reader.join()
    said = status.read_text().strip() if status.exists() else ""
    if not said:
        raise MachineFailed(_last_words(console, "the machine has stopped before its work was done"))
    return int(said)


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(_ESCAPES.sub("", line).rstrip())
    lines.put(None)


def follow(lines: queue.Queue[str | None], console: Path, limit_s: float, show: Callable[[str], None]) -> None:
    """Show what comes until there is no more."""
    end, last_words = time.monotonic() + limit_s, [""]
    while (left_s := end - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=min(_QUIET_S, left_s))
        except queue.Empty:
            before, last_words = last_words, _last_lines(console, 1)
            show(" ".join(["...", *(last_words if last_words != before else [])]))
            continue
        if line is None:
            return
        show(line)
    raise MachineFailed(_last_words(console, f"the machine is not done after {limit_s:.0f} s"))


def _last_lines(console: Path, count: int) -> list[str]:
    text = _ESCAPES.sub("", console.read_text(errors="replace")) if console.exists() else ""
    return [line for line in text.splitlines() if line.strip()][-count:]


def _last_words(console: Path, what: str) -> str:
    return "\n    ".join([f"{what} (console: {console}):", *_last_lines(console, 12)])
