"""A terminal that programs may be run on."""

from __future__ import annotations

import os
import pty
import subprocess


def run_on_a_terminal(command: list[str], *, shown: bytearray | None = None, **environment: str) -> tuple[str, int]:
    """Run a command on a terminal of its own; return what that shows and the exit code. ``shown`` fills as it comes."""
    ours, theirs = pty.openpty()
    shown = bytearray() if shown is None else shown
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=os.environ | environment) as running:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # how a terminal says that nobody is left at the other end
            pass
        finally:
            os.close(ours)
        code = running.wait(60)
    return shown.decode(), code
