"""A number that the host gives to one process after the other does not make them one in a trace."""

from __future__ import annotations

import sys
from pathlib import Path

import docker
import trio
from sessions import events_of, finished, running

from bedrock.client import Client
from bedrock.model import TraceState
from bedrock.trace.summary import summarise

_CHOSEN = 500

# Makes two processes in the PID namespace of another one. The second has the host's number of the first, which has
# ended by then, and a chosen number in the namespace.
_REUSE = f"""
import ctypes, os, signal, struct, sys
_, target, name = sys.argv
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID, SYS_clone3 = 0x20000000, 435

def read_and_exit(size):
    descriptor = os.open(name, os.O_RDONLY)
    os._exit(len(os.read(descriptor, size)))

assert libc.setns(os.open(f"/proc/{{target}}/ns/pid", os.O_RDONLY), CLONE_NEWPID) == 0
first = os.fork()
if not first:
    read_and_exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 7
numbers = (ctypes.c_int * 2)({_CHOSEN}, first)
arguments = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(numbers), 2, 0)
second = libc.syscall(SYS_clone3, arguments, len(arguments))
if not second:
    read_and_exit(9)
assert second == first, os.strerror(ctypes.get_errno())
assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 9
"""


async def test_two_processes_to_which_the_host_gives_one_number_stay_two(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await running(client, await client.create(image, ["sleep", "60"], ttl="60s"))
    api = docker.from_env()
    try:
        pid = api.containers.get(f"bedrock-target-{session.id}").attrs["State"]["Pid"]
    finally:
        api.close()
    command = [sys.executable, "-S", "-c", _REUSE, str(pid), f"/proc/{pid}/root/srv/verse.txt"]
    done = await trio.run_process(command, check=False, capture_stderr=True)
    assert done.returncode == 0, done.stderr
    await client.stop(session.id)
    session = await finished(client, session)
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    events = await events_of(client, session, tmp_path)
    first, second = (event for event in events if event.op == "read" and event.requested in {7, 9})
    assert (first.result, second.result) == (7, 9)
    assert first.pid not in {1, _CHOSEN}
    assert (second.pid, second.tid) == (_CHOSEN, _CHOSEN)
    assert first.process != second.process
    ends = [(event.pid, event.process) for event in events if event.op == "exit" and event.result in {7 << 8, 9 << 8}]
    assert ends == [(first.pid, first.process), (second.pid, second.process)]
    processes = {process.pid for process in summarise(tmp_path / f"{session.id}.bdt").processes}
    assert {1, first.pid, _CHOSEN} <= processes
