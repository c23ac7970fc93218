"""Boots kernels of Debian's releases, runs sessions under the tracer in them, and prints a table of what came out."""

from __future__ import annotations

import argparse
import os
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
from kernel_matrix.archive import Archive  # noqa: E402
from kernel_matrix.guest import make_disk  # noqa: E402
from kernel_matrix.judge import Test, choose_tests, find_tests  # noqa: E402
from kernel_matrix.kernels import SHORT_MATRIX, Arch, Kernel, choose, full_matrix, kernels_of  # noqa: E402
from kernel_matrix.row import Row, try_kernel  # noqa: E402
from kernel_matrix.table import as_text  # noqa: E402

_BEGUN = time.monotonic()
_DISK_MIB = 512
_printing = threading.Lock()


def say(text: str) -> None:
    with _printing:
        print(f"[{time.monotonic() - _BEGUN:5.0f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Equipment:
    """What all machines of one architecture are given."""

    files: dict[str, bytes]  # in memory, by path
    disk: Path
    programs: frozenset[str]


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
    make_disk(root, directory / "disk.img", _DISK_MIB)
    return Equipment(files, directory / "disk.img", frozenset(path.name for path in (root / "image/bin").iterdir()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/kernels", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"only {', '.join(SHORT_MATRIX)}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="only this kernel, such as 6.1-amd64, newest-arm64, 6.12-arm64-16k; may be given often")  # fmt: skip
    parser.add_argument("--tests", default="", metavar="TEXT", help="only the tests with this text in their names")
    parser.add_argument("--tracer", type=Path, metavar="DIR",
                        help="a tracer that is built already (bdtrace, gate, perhaps btf/), for one architecture")  # fmt: skip
    default_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedrock" / "kernels"
    parser.add_argument("--cache", type=Path, default=default_cache, metavar="DIR",
                        help=f"for packages, and the results of the last run ({default_cache})")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many machines run at once")
    parser.add_argument("--list", action="store_true", help="print the kernels and the tests, and run nothing")
    return parser.parse_args()


def chosen_kernels(options: argparse.Namespace, archive: Archive) -> list[Kernel]:
    kernels = kernels_of(archive.names)
    names = options.only or (SHORT_MATRIX if options.short else full_matrix(kernels))
    return list(dict.fromkeys(choose(kernels, name) for name in names))


def run_matrix(options: argparse.Namespace, archive: Archive, kernels: list[Kernel], tests: list[Test]) -> list[Row]:
    packages = {}
    for kernel in kernels:
        say(f"{kernel.name}: {kernel.release}")
        packages[kernel] = archive.unpacked(kernel.packages, kernel.arch_name)
    with tempfile.TemporaryDirectory(prefix="bedrock-kernels-") as name:
        archs = dict.fromkeys(kernel.arch for kernel in kernels)
        equipment = {arch: equip(arch, archive, Path(name) / arch.name, options.tracer) for arch in archs}

        def try_one(kernel: Kernel) -> Row:
            own = equipment[kernel.arch]
            row = try_kernel(
                kernel, packages[kernel], options.cache / "results" / kernel.name,
                files=own.files, disk=own.disk, programs=own.programs, tests=tests, say=say,
            )  # fmt: skip
            say(f"{kernel.name}: {'good' if row.is_good else 'BAD'} after {row.seconds:.0f} s")
            return row

        with ThreadPoolExecutor(max_workers=options.jobs) as pool:
            return list(pool.map(try_one, kernels))


def main() -> int:
    options = parse()
    options.cache.mkdir(parents=True, exist_ok=True)
    archive = Archive(options.cache)
    archive.update()
    kernels = chosen_kernels(options, archive)
    tests = choose_tests(list(find_tests()), options.tests)
    if options.list:
        for kernel in kernels:
            print(kernel.name, kernel.release)
        for test in tests:
            print(test.name)
        return 0
    rows = run_matrix(options, archive, kernels, tests)
    print(as_text(rows))
    for row in rows:
        for line in row.details:
            print(f"{row.kernel.name}: {line}")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
