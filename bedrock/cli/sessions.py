"""run, ps, show, stop, logs, rm, nodes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

import click
import trio

from bedrock.cli.common import age, async_command, json_option, outcome_of, size_text
from bedrock.cli.output import EXIT_BEDROCK_FAILED, copy_output, fail, print_json, print_table, progress, say
from bedrock.client import ApiError, ApiUnreachable, Client, open_client
from bedrock.concurrency.backoff import backoff_delays
from bedrock.model import EventClass, LogsState, Reason, Session, Status
from bedrock.printable import printable
from bedrock.untrusted import shortened
from bedrock.volume import STDERR, STDOUT

_EXIT_TTL = 124  # as timeout(1) has it
_EXIT_INTERRUPTED = 130
_EXIT_STOPPED = 143
# For how long `run` looks for an API that went away in the middle; the session itself does not mind.
_API_AWAY_S = 300.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 5.0
_MAX_COMMAND = 40  # characters of it in a table


_CLASSES = ", ".join(EventClass)


def _labels(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    labels = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
        labels[name] = content
    return labels


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--ttl", default="1h", show_default=True, help="End it after this long (10s, 6m, 1h30m).")
@click.option("--init", is_flag=True, help="Run a small init as PID 1, as `docker run --init` does.")
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="NAME=VALUE", help="Label the session.")
@click.option("--trace", "mode", metavar="MODE", help="events, summary or off.  [the node's default]")
@click.option("--trace-path", "paths", multiple=True, metavar="PATH", help="Trace files below PATH only; repeatable.")
@click.option("--trace-class", "classes", multiple=True, metavar="CLASS", help=f"Trace {_CLASSES} only; repeatable.")
@click.option("--trace-max-size", "max_size", metavar="SIZE", help="Upper size of the trace: 512MiB, 0 for none.")
@click.option("--max-output", metavar="SIZE", help="Upper size of the output: 64MiB.  [the node's default]")
@click.option("-d", "--detach", is_flag=True, help="Print the session's id and return at once.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the command's own output.")
@async_command
async def run(  # noqa: PLR0917 - click calls it by name
    image: str,
    command: tuple[str, ...],
    ttl: str,
    init: bool,
    labels: dict[str, str],
    mode: str | None,
    paths: tuple[str, ...],
    classes: tuple[str, ...],
    max_size: str | None,
    max_output: str | None,
    detach: bool,
    quiet: bool,
) -> int:
    """Run IMAGE under the tracer, print its output, and exit with its exit code.

    COMMAND replaces the image's own; put `--` in front of one that begins with a dash. The exit code is the command's;
    124 when the TTL ended it, 125 when Bedrock could not run it, 130 after Ctrl-C (which stops the session).
    """
    if command and command[0] == "--":
        command = command[1:]
    given = {"mode": mode, "paths": list(paths), "classes": list(classes), "max_size": max_size}
    tracing = {name: value for name, value in given.items() if value}
    async with open_client() as client:
        session = await client.create(
            image, command, ttl=ttl, init=init, labels=labels, trace=tracing or None, max_output=max_output
        )
        if detach:
            say(session.id)
            return 0
        followed = await _follow_and_obey(client, session, quiet=quiet)
    ended = followed.ended
    if ended is None and followed.is_stopped:
        fail(f"session {session.id} is being stopped; not waiting for it", _EXIT_INTERRUPTED)
    if ended is None:
        fail(
            f"the API has not answered, so session {session.id} may run on; `bedrock stop {session.id}` stops it",
            _EXIT_INTERRUPTED,
        )
    if not quiet:
        say(f"bedrock: {_last_word(ended)}", err=True)
    return _EXIT_INTERRUPTED if followed.signals and ended.status is Status.STOPPED else _exit_code(ended)


@dataclass
class _Followed:
    """What became of a session that was followed."""

    ended: Session | None = None  # None: nobody waited for its end
    signals: int = 0
    is_stopped: bool = False  # the API has taken the request to stop it


async def _follow_and_obey(client: Client, session: Session, *, quiet: bool) -> _Followed:
    """Follow a session and print its output. The first SIGINT or SIGTERM stops it, the second one ends the waiting."""
    followed = _Followed()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await _stop(client, session.id)
                followed.is_stopped = True

            async def obey_signals() -> None:
                async for _ in signals:
                    followed.signals += 1
                    if followed.signals > 1:
                        nursery.cancel_scope.cancel()
                    else:
                        say("bedrock: stopping the session (once more: don't wait)", err=True)
                        # In a task of its own: while the API does not answer, a second signal must be heard.
                        nursery.start_soon(stop)

            nursery.start_soon(obey_signals)
            ended = await _follow(client, session, quiet=quiet)
            await _print_output(client, ended)
            followed.ended = ended
            nursery.cancel_scope.cancel()
    return followed


async def _stop(client: Client, session_id: str) -> None:
    """Stop a session, if it has not ended by itself. An API that is away is asked again when it is back."""
    for delay in backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S):
        try:
            await client.stop(session_id)
        except ApiUnreachable:
            await trio.sleep(delay)
            continue
        except ApiError as error:
            if error.status != 400:  # what has ended can't be stopped
                raise
        return


async def _follow(client: Client, session: Session, *, quiet: bool) -> Session:
    """Wait for the end, saying on a terminal what is waited for. An API that goes away is waited for, too."""
    with progress(f"session {session.id}", quiet=quiet) as show_progress:
        delays = backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S)
        away_since: float | None = None
        while True:
            try:
                async for state in client.watch(session.id, until_stored=True):
                    delays, away_since = backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S), None
                    show_progress(f"{state.status} {state.message}")
                    session = state
                return session
            except ApiUnreachable:
                away_since = away_since or trio.current_time()
                if trio.current_time() - away_since > _API_AWAY_S:
                    raise
                await trio.sleep(next(delays))


async def _print_output(client: Client, session: Session) -> None:
    if session.logs.state is LogsState.NONE:
        return
    names = {item.filename for item in await client.files(session.id)}
    for name in (STDOUT, STDERR):
        if name in names:
            async with client.open_file(session.id, name) as chunks:
                async for chunk in chunks:
                    copy_output(chunk, err=name == STDERR)


def _exit_code(session: Session) -> int:
    if session.reason is Reason.TTL:
        return _EXIT_TTL
    if session.status is Status.STOPPED:
        return _EXIT_STOPPED
    if session.reason in {Reason.EXIT, Reason.OOM_KILLED, Reason.CREATE_ERROR} and session.exit_code is not None:
        return session.exit_code
    return 0 if session.status is Status.FINISHED else EXIT_BEDROCK_FAILED


def _last_word(session: Session) -> str:
    trace = f"; trace {session.trace.state}, {session.trace.events} events" if session.trace is not None else ""
    return f"session {session.id} {session.status}: {session.message}{trace}"


@click.command()
@click.option("--status", type=click.Choice([item.value for item in Status]), help="Only sessions of this status.")
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="NAME=VALUE", help="Only with this label.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at the most.")
@json_option
@async_command
async def ps(status: str | None, labels: dict[str, str], limit: int, as_json: bool) -> None:
    """List sessions, the newest first."""
    async with open_client() as client:
        wanted = Status(status) if status else None
        listing = client.list(status=wanted, labels=labels, limit=limit, newest_first=True)
        sessions = [session async for session in listing]
    if as_json:
        print_json(sessions)
        return
    rows = [
        [
            item.id,
            item.image,
            shortened(printable(item.command), _MAX_COMMAND),
            age(item.created_at),
            item.status,
            outcome_of(item),
            item.trace.state if item.trace is not None else "",
            item.dockerd_id or "",
        ]
        for item in sessions
    ]
    print_table(["ID", "IMAGE", "COMMAND", "AGE", "STATUS", "ENDED", "TRACE", "NODE"], rows)


@click.command()
@click.argument("session_id", metavar="ID")
@json_option
@async_command
async def show(session_id: str, as_json: bool) -> None:
    """Show one session: what was asked, how it ended, what its trace is worth, where its files are."""
    async with open_client() as client:
        session = (await client.get(session_id)).session
        files = await client.files(session_id)
    if as_json:
        print_json(session)
        return
    trace = session.trace
    lost = ", ".join(f"{count} {cause}" for cause, count in trace.lost.items()) if trace is not None else ""
    rows = [
        ("id", session.id),
        ("image", session.image),
        ("command", session.command),
        ("ttl", session.ttl),
        ("labels", ", ".join(f"{name}={value}" for name, value in session.labels.items())),
        ("status", session.status),
        ("reason", f"{session.reason or ''}"),
        ("message", session.message),
        ("exit code", "" if session.exit_code is None else str(session.exit_code)),
        ("node", session.dockerd_id or ""),
        ("created", session.created_at.isoformat()),
        ("started", session.started_at.isoformat() if session.started_at else ""),
        ("finished", session.finished_at.isoformat() if session.finished_at else ""),
        (
            "trace",
            f"{trace.state}, {trace.events} of {trace.seen or '?'} records; {trace.message}".rstrip("; ")
            if trace is not None
            else "",
        ),
        ("lost", lost),
        ("unsupported", ", ".join(trace.unsupported) if trace is not None else ""),
        ("output", session.output.message if session.output is not None else ""),
        ("logs", f"{session.logs.state} {session.logs.message}".strip()),
    ]
    for name, text in rows:
        if text:
            say(f"{name + ':':<12} {text}")
    for item in files:
        say(f"{'file:':<12} {item.filename} ({size_text(item.size)}, sha256 {item.sha256})")


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
@async_command
async def stop(session_ids: tuple[str, ...]) -> None:
    """Stop sessions. Their logs and traces are collected all the same."""
    async with open_client() as client:
        for session_id in session_ids:
            await client.stop(session_id)
            say(session_id)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
@async_command
async def rm(session_ids: tuple[str, ...]) -> None:
    """Delete ended sessions with all their files."""
    async with open_client() as client:
        for session_id in session_ids:
            await client.delete(session_id)
            say(session_id)


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("filename", metavar="[FILE]", required=False)
@click.option("-l", "--list", "lists", is_flag=True, help="List the session's files.")
@json_option
@async_command
async def logs(session_id: str, filename: str | None, lists: bool, as_json: bool) -> None:
    """Print what a session printed, or one of its files."""
    async with open_client() as client:
        if lists or as_json:
            files = await client.files(session_id)
            if as_json:
                print_json(files)
            else:
                rows = [[item.filename, str(item.size), item.sha256] for item in files]
                print_table(["FILE", "BYTES", "SHA256"], rows, right=["BYTES"])
            return
        if filename is None:
            await _print_output(client, (await client.get(session_id)).session)
            return
        async with client.open_file(session_id, filename) as chunks:
            async for chunk in chunks:
                copy_output(chunk)


@click.command()
@json_option
@async_command
async def nodes(as_json: bool) -> None:
    """List the Docker hosts of the fleet."""
    async with open_client() as client:
        found = await client.nodes()
    if as_json:
        print_json(found)
        return
    rows = [
        [item.name, "alive" if item.alive else "silent", f"{item.used}/{item.slots}", age(item.last_seen), item.version]
        for item in found
    ]
    print_table(["NODE", "STATE", "SLOTS USED", "LAST SEEN", "VERSION"], rows)
