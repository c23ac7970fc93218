"""Runs scripts/demo, as it was committed last, in virtual machines that have never seen Bedrock.

A machine has a Debian of its own on its disk, boots that one's kernel, and has Debian's Docker Engine with cgroup v2
and the systemd driver. It is emulated in software. Packages come from where this host gets its own.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from demo_machines.disks import DiskFailed, install, installed, make_media
from demo_machines.machine import MachineFailed, run_machine

_ROOT = Path(__file__).parent.parent.parent
_RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo_vm", description=__doc__)
    parser.add_argument("release", choices=[*_RELEASES, "both"], help="which Debian")
    default_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedrock" / "machines"
    parser.add_argument("--cache", type=Path, default=default_cache, metavar="DIR",
                        help=f"for disks, which the next run uses again, and logs ({default_cache})")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="install Debian again, with today's packages")
    parser.add_argument("--limit", type=int, default=7200, metavar="SECONDS",
                        help="how long a machine may run (%(default)s)")  # fmt: skip
    return parser.parse_args()


def run_demo(suite: str, options: argparse.Namespace) -> int:
    """Run the demo on a release of Debian and return its exit code. Raises what a disk or a machine raises."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{suite} {time.monotonic() - begun:4.0f} s] {text}", flush=True)

    logs = options.cache / "logs" / suite
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    system = None if options.fresh else installed(suite, options.cache)
    if system is None:
        say(f"installing {_RELEASES[suite]} onto a disk (log: {logs}/disk.txt)")
        system = install(suite, options.cache, log=logs / "disk.txt")
    with tempfile.TemporaryDirectory(prefix="bedrock-demo-") as name:
        media = Path(name) / "media.img"
        make_media(_ROOT, media, log=logs / "disk.txt")
        say(f"booting it (console: {logs}/console.txt)")
        code = run_machine(system, media, logs, limit_s=options.limit, show=say)
    say(f"scripts/demo has ended with {code}")
    return code


def main() -> int:
    options = parse()
    options.cache.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    suites = list(_RELEASES) if options.release == "both" else [options.release]
    codes = []
    with (options.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for suite in suites:
            try:
                codes.append(run_demo(suite, options))
            except (DiskFailed, MachineFailed) as error:
                print(f"error: {suite}: {error}", file=sys.stderr)
                codes.append(1)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
