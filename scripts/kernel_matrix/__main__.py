"""Boots kernels of Debian's releases, runs sessions under the tracer in them, and prints a table of what came out."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(_ROOT / "tests" / "engine"), str(_ROOT / "tests")]

from kernel_matrix import programs  # noqa: E402
from kernel_matrix.archive import Archive, PackageGone  # noqa: E402
from kernel_matrix.guest import make_disk  # noqa: E402
from kernel_matrix.judge import choose_tests, find_tests  # noqa: E402
from kernel_matrix.kernels import SHORT_MATRIX, Arch, Kernel, candidates, full_matrix, kernels_of  # noqa: E402
from kernel_matrix.row import Row, try_kernel  # noqa: E402
from kernel_matrix.table import as_page, as_text  # noqa: E402

_BEGUN = time.monotonic()
_PAGE = _ROOT / "docs" / "reference" / "kernels.md"
_DISK_MIB = 768
_PROBES = "bdtrace.bpf.o"
_printing = threading.Lock()


def say(text: str) -> None:
    with _printing:
        print(f"[{time.monotonic() - _BEGUN:5.0f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Equipment:
    """What all machines of one architecture are given."""

    files: dict[str, bytes]  # in memory, by path
    disk: Path
    probes: Path | None  # None: a tracer that was built elsewhere came without them


def equip(arch: Arch, archive: Archive, directory: Path, tracer: Path | None) -> Equipment:
    """Compile everything for an architecture, and make the disk."""
    say(f"{arch.name}: compiling {'the sessions' if tracer else 'the tracer, the sessions'} and the tests' programs")
    directory.mkdir()
    tracer = tracer or programs.build_tracer(arch, archive, directory)
    files = {f"tracer/{name}": (tracer / name).read_bytes() for name in ("bdtrace", "gate")}
    if (tracer / "btf").is_dir():
        files |= {f"btf/{path.name}": path.read_bytes() for path in (tracer / "btf").iterdir()}
    files["bin/session"] = programs.build_session(arch, directory).read_bytes()
    files["bin/busybox"] = programs.busybox(arch, archive).read_bytes()
    root = directory / "disk"
    programs.lay_image(arch, archive, root / "image")
    if programs.has_oracle():
        programs.lay_debian(arch, archive, root / "debian")
    make_disk(root, directory / "disk.img", _DISK_MIB)
    probes = next((path for path in (tracer / _PROBES, tracer.parent / _PROBES) if path.exists()), None)
    return Equipment(files, directory / "disk.img", probes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/kernels", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"only {', '.join(SHORT_MATRIX)}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="only this kernel, such as 6.1-amd64 or newest-arm64-16k; may be given often")  # fmt: skip
    parser.add_argument("--tests", default="", metavar="TEXT", help="only the tests with this text in their names")
    parser.add_argument("--tracer", type=Path, metavar="DIR",
                        help="a tracer that is built already: bdtrace, gate, perhaps btf/")  # fmt: skip
    default_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedrock" / "kernels"
    parser.add_argument("--cache", type=Path, default=default_cache, metavar="DIR",
                        help=f"for packages, and the results of the last run ({default_cache})")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many machines run at once")
    parser.add_argument("--write-docs", action="store_true", help=f"write the table to {_PAGE.relative_to(_ROOT)}")
    parser.add_argument("--list", action="store_true", help="print the kernels and the tests, and run nothing")
    return parser.parse_args()


def fetch(archive: Archive, names: list[str]) -> dict[Kernel, Path | None]:
    """Unpack a kernel for each name: the newest that the mirror has in truth. None: it has not a single one."""
    kernels = kernels_of(archive.names)
    found: dict[Kernel, Path | None] = {}
    for name in names:
        fitting = candidates(kernels, name)
        for kernel in fitting:
            try:
                found[kernel] = archive.unpacked(kernel.release, kernel.packages, kernel.arch_name)
            except PackageGone:
                say(f"{name}: the mirror does not have {kernel.release}")
                continue
            say(f"{name}: {kernel.release}")
            break
        else:
            found[fitting[0]] = None
    return found


def run_matrix(
    options: argparse.Namespace, work: Path, packages: dict[Kernel, Path | None], equipment: dict[Arch, Equipment]
) -> list[Row]:
    tests = choose_tests(list(find_tests(is_short=options.short)), options.tests)

    def try_one(kernel: Kernel) -> Row:
        own, package = equipment[kernel.arch], packages[kernel]
        if package is None:
            return Row(kernel, broken="the mirror does not have it, nor one before it")
        row = try_kernel(
            kernel, package, work / kernel.name,
            files=own.files, disk=own.disk, probes=own.probes, tests=tests, say=say,
        )  # fmt: skip
        kept = options.cache / "results" / kernel.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(work / kernel.name, kept)
        say(f"{kernel.name}: {'good' if row.is_good else 'BAD'} after {row.seconds:.0f} s\n{as_text([row])}")
        return row

    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        return list(pool.map(try_one, packages))


def _end_at_once(work: Path) -> None:
    """Leave nothing behind; the machines end with this process."""
    shutil.rmtree(work, ignore_errors=True)
    os._exit(1)


def main() -> int:
    options = parse()
    options.cache.mkdir(parents=True, exist_ok=True)
    archive = Archive(options.cache)
    with tempfile.TemporaryDirectory(prefix="bedrock-kernels-") as name:
        work = Path(name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end_at_once(work))
        with archive.locked():
            archive.update()
            names = options.only or (SHORT_MATRIX if options.short else full_matrix(kernels_of(archive.names)))
            if options.list:
                kernels = [candidates(kernels_of(archive.names), name)[0] for name in names]
                print(
                    "\n".join(
                        [f"{kernel.name}: {kernel.release}" for kernel in kernels]
                        + [test.name for test in find_tests()]
                    )
                )
                return 0
            packages = fetch(archive, names)
            archs = dict.fromkeys(kernel.arch for kernel in packages)
            equipment = {arch: equip(arch, archive, work / arch.name, options.tracer) for arch in archs}
        rows = run_matrix(options, work, packages, equipment)
    print(as_text(rows))
    if options.write_docs:
        said = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
        chosen = " --short" if options.short else "".join(f" --only {name}" for name in options.only)
        _PAGE.write_text(as_page(rows, command=f"scripts/kernels{chosen}", emulator=f"qemu {said.split()[3]}"))
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
