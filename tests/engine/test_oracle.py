"""Our traces against ``strace -f`` on the same command in the same image: calls by name and error, bytes by file."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import account_of_events, run_strace
from sessions import events_of, finished

from bedrock.client import Client
from bedrock.model import TraceState

pytestmark = pytest.mark.timeout(600)  # the first run makes an image

_GIT = (
    "export HOME=/tmp GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a"
    " GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE=1600000000Z GIT_COMMITTER_DATE=1600000000Z GIT_PAGER=cat; cp -r -p"
    " /srv/tree /tmp/tree; cd /tmp/tree; find . -exec touch -d @1600000000 {} +;"
    " git -c init.defaultBranch=main init -q; git config gc.auto 0; git config maintenance.auto false;"
    " git config core.preloadIndex false; git config index.threads 1; git config pack.threads 1;"
    " git add -A; git commit -q -m one; git log --stat; git status"
)
_SQL = (
    "create table t(a integer primary key, b text); begin; with recursive n(i) as (select 1 union all select i + 1"
    " from n where i < 20000) insert into t select i, hex(i * 7919) from n; commit; create index u on t(b);"
    " select count(*), sum(length(b)) from t where b > '4'; update t set b = b || 'x' where a % 7 = 0; vacuum;"
)
_FIO = (
    "fio --name=x --filename=/tmp/fio --size=4m --bs=4k --ioengine=psync --randseed=7 --disk_util=0 --thread"
    " --rw={} --invalidate=0 --fallocate=none --output=/dev/null"
)
_PYTHON = (
    "import json, email.message, csv, decimal, xml.etree.ElementTree, http.client, argparse, logging.config;"
    " print(json.dumps(sorted(open('/srv/tree/d1/f1.txt'))))"
)

WORKLOADS = {
    "fio, sequential": _FIO.format("read"),
    "fio, random": _FIO.format("randrw"),
    "sqlite": f'sqlite3 /tmp/x.db "{_SQL}"',
    "git": _GIT,
    "tar and gzip": "cd /tmp; tar -C /srv -cf - tree | gzip -n > t.gz; gzip -dc t.gz | tar -xf -;"
    " tar -tzf t.gz | wc -l",
    "python": f'PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 python3 -c "{_PYTHON}"',
    "static busybox": "cd /srv/tree; busybox sh -c 'busybox find . -type f | busybox sort | busybox xargs busybox cat"
    " | busybox grep -c 1; busybox dd if=/srv/bytes of=/tmp/y bs=3k; busybox md5sum /tmp/y'",
    "threads": "threads /srv/bytes",
    "forks": "pitfalls storm 300",
    "attributes": "attributes",
    "32 bits": "cd /tmp; cp /srv/bytes /srv/big.bin; for i in 1 2 3 4 5 6 7 8 9; do abi32; abi64; done",
}


# What depends on the clock and not on the command: fio's helper thread wakes up by a timer, looks for a file that would
# make it print its state, and how long everything took is in what it prints. /proc/N/status has the host's numbers.
IGNORED = {"fio": r"timerfd|^anon:|/tmp/fio-dump-status|/proc/(N|self)/status|/dev/null"}


@pytest.mark.parametrize("name", WORKLOADS)
async def test_calls_and_bytes_are_those_that_strace_sees(
    client: Client, debian: str, tmp_path: Path, name: str
) -> None:
    command, ignored = ["sh", "-c", WORKLOADS[name]], IGNORED.get(name.split(",", maxsplit=1)[0])
    (tmp_path / "strace").mkdir()
    theirs = run_strace(debian, command, tmp_path / "strace", ignored=ignored)
    session = await finished(client, await client.create(debian, command, ttl="120s"))
    assert session.exit_code == 0, session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    ours = account_of_events(await events_of(client, session, tmp_path), ignored=ignored)
    assert sum(ours.calls.values()) > 40
    assert ours - theirs == {}
