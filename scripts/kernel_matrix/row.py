"""One row of the table: everything that is tried on one kernel."""

from __future__ import annotations

import base64
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio
from engine_facts import IMAGE, NOBODYS_IMAGE

from bedrock.model import Session, TraceState
from bedrock.trace.events import read_events
from bedrock.volume import TRACE_FILE
from kernel_matrix.client import GuestClient, Image
from kernel_matrix.guest import Guest, GuestFailed, open_guest
from kernel_matrix.judge import DEBIAN, Judgement, Outcome, Test, judge_test
from kernel_matrix.kernels import Kernel

# The kernels on which the tracer refuses to work, which is right as long as it says why.
_MAY_REFUSE = {(5, 10)}
_STRESS_ROUNDS = 1000
# Not that something took long, which an emulated processor may.
_COMPLAINT = re.compile(r"BUG:|Oops|WARNING: CPU|general protection|Unable to handle")
IMAGES = {
    IMAGE: Image("/disk/image", {"path": "/bin"}),
    NOBODYS_IMAGE: Image("/disk/image", {"path": "/nowhere:/bin", "user": "65534", "directory": "/srv"}),
    DEBIAN: Image("/disk/debian", {"path": "/usr/local/bin:/usr/bin:/bin"}),
}


@dataclass
class Row:
    """What was seen on one kernel."""

    kernel: Kernel
    page_bytes: int = 0
    refusal: str = ""  # why no session could be traced
    details: list[str] = field(
        default_factory=list
    )  # for whoever has to find out more: the verifier's lines, the console
    judgements: list[Judgement] = field(default_factory=list)
    repeated: list[Judgement] = field(default_factory=list)  # tests whose traces lost records, and which ran once more
    unsupported: list[str] = field(default_factory=list)
    stress_lost: dict[str, int] | None = None  # None: it did not come to that
    stress_false: list[str] = field(default_factory=list)
    attach_ms: float = 0.0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)  # of the kernel, about itself
    broken: str = ""  # the machine did not boot, or was lost

    def count(self, outcome: Outcome, *, is_comparison: bool | None = None) -> int:
        """How many judgements came out like this: of comparisons with strace, of all others, or of all."""
        return sum(
            judgement.outcome is outcome and is_comparison in {None, judgement.is_comparison}
            for judgement in self.judgements
        )

    @property
    def lost(self) -> Counter[str]:
        """What was missing in the traces of tests that failed, or that had to run once more, by cause."""
        total: Counter[str] = Counter()
        for judgement in [*self.judgements, *self.repeated]:
            if judgement.outcome is Outcome.FAILED:
                total.update(judgement.lost or {})
        return total

    @property
    def is_good(self) -> bool:
        """Nothing failed; or the tracer has refused a kernel that it may refuse."""
        if self.refusal:
            return self.kernel.series in _MAY_REFUSE and not (self.broken or self.complaints)
        return not (
            self.broken or self.complaints or self.count(Outcome.FAILED) or self.stress_lost or self.stress_false
        )


def try_kernel(
    kernel: Kernel,
    package: Path,
    directory: Path,
    *,
    files: dict[str, bytes],
    disk: Path,
    probes: Path | None,
    tests: list[Test],
    say: Callable[[str], None],
) -> Row:
    """Boot a kernel, see whether the tracer works there at all, and judge its sessions.

    ``probes`` are the compiled ones, from which it is known what types of a kernel they need.
    """
    row, begun = Row(kernel), time.monotonic()
    try:
        with open_guest(kernel, package, directory, files=files, disk=disk) as guest:
            say(f"{kernel.name}: booted {kernel.release} in {time.monotonic() - begun:.0f} s")
            client = GuestClient(guest, IMAGES)
            row.page_bytes = _page_bytes(guest)
            _try_tracer(row, client)
            if row.refusal:
                say("\n    ".join([f"{kernel.name}: refused: {row.refusal}", *row.details]))
            else:
                if probes is not None:
                    _give_types(guest, probes)
                _judge_all(row, client, tests, say)
                _try_stress(row, client)
            guest.ask("dmesg", directory / "dmesg")
            said = (directory / "dmesg" / "said").read_text(errors="replace")
            row.complaints = [line for line in said.splitlines() if _COMPLAINT.search(line)]
            for line in row.complaints:
                say(f"{kernel.name}: the kernel complains: {line}")
    except GuestFailed as error:
        row.broken = str(error)
        say(f"{kernel.name}: {error}")
    row.seconds = time.monotonic() - begun
    if directory.exists():
        (directory / "judgements.txt").write_text("".join(f"{judgement}\n" for judgement in row.judgements))
    return row


def _page_bytes(guest: Guest) -> int:
    guest.ask("grep -m1 KernelPageSize /proc/self/smaps", guest.directory / "pages")
    return int((guest.directory / "pages" / "said").read_text().split()[1]) << 10


def _give_types(guest: Guest, probes: Path) -> None:
    """Give the tracer the few types of the kernel that its probes need, as its image has them on its own host.

    Without them it attaches too, as it has done for the first session; but reading all types takes seconds here.
    """
    place = guest.directory / "types"
    guest.ask("cat /sys/kernel/btf/vmlinux >/reply/all", place)
    subprocess.run(["bpftool", "gen", "min_core_btf", "all", "some", str(probes)], cwd=place, check=True)
    encoded = base64.encodebytes((place / "some").read_bytes()).decode()
    guest.ask(f"base64 -d >/btf/$(uname -r).btf <<END\n{encoded}END", place)


def _run(client: GuestClient, *command: str) -> Session:
    return trio.run(lambda: client.create(IMAGE, list(command)))


def _try_tracer(row: Row, client: GuestClient) -> None:
    session = _run(client, "true")
    assert session.trace is not None
    report = client.report(session.id)
    if report is not None:
        row.unsupported, row.attach_ms = report.unsupported, report.attach_ms
    if session.trace.state is TraceState.UNTRACED:
        # A refusal is what the tracer itself says; that it has said nothing is no reason.
        if report is None or report.state != "failed" or not report.error:
            row.broken = f"the tracer has not said why the session is untraced: {session.message}"
        row.refusal = session.message
        row.details = client.tracer_log(session.id).splitlines()


def _judge_all(row: Row, client: GuestClient, tests: list[Test], say: Callable[[str], None]) -> None:
    for number, test in enumerate(tests, 1):
        judgement = judge_test(test, client, page_bytes=row.page_bytes, unsupported=row.unsupported)
        if judgement.outcome is Outcome.FAILED and judgement.lost:
            # What is missing is said by the verdict, and is in the table. Whether what is there is true is seen again.
            say(f"{row.kernel.name}: {number} of {len(tests)}: once more, since {dict(judgement.lost)}: {test.name}")
            row.repeated.append(judgement)
            judgement = judge_test(test, client, page_bytes=row.page_bytes, unsupported=row.unsupported)
        row.judgements.append(judgement)
        if judgement.outcome is Outcome.FAILED:
            say(f"{row.kernel.name}: {number} of {len(tests)}: FAILED {test.name}\n    {judgement.detail[:700]}")
        elif number % 10 == 0:
            say(f"{row.kernel.name}: {number} of {len(tests)} judged")


def _try_stress(row: Row, client: GuestClient) -> None:
    from test_stress import false_records  # not before the judge has arranged that tests say what they compare

    session = _run(client, "stress", str(_STRESS_ROUNDS))
    assert session.trace is not None
    row.stress_lost = dict(session.trace.lost)
    if session.exit_code != 0 or session.trace.state in {TraceState.UNTRACED, TraceState.PARTIAL}:
        row.stress_false = [f"stress: {session.message}; {session.trace.state}: {session.trace.message}"]
        return
    row.stress_false = false_records(read_events(client.path_of(session.id, TRACE_FILE)))
