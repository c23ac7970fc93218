"""Every setting of Bedrock, once: its name, default and meaning.

A value comes from the first of these that has it: a flag (``--api-http-port``), the environment
(``BEDROCK_API_HTTP_PORT``), the file (TOML, ``[api] http_port``), the default. The three processes share one table, and
the defaults of one follow the values of another (FileMD's ``api_url`` follows the API's port), so that they fit each
other without a file. A bad value is refused with the name under which the user gave it.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from bedrock.duration import parse_duration
from bedrock.errors import InvalidInput
from bedrock.model import MAX_OUTPUT_BYTES, NodeName, TraceMode, parse_node_name
from bedrock.size import format_size, parse_size
from bedrock.tracer import OWN_IMAGE

ENV_PREFIX = "BEDROCK_"
DEFAULT_URL = "http://127.0.0.1:8080"


def _text(text: str, name: str) -> str:
    if not text or any(ord(character) < 32 for character in text):
        raise InvalidInput(name, "must be a non-empty line of text")
    return text


def _path(text: str, name: str) -> Path:
    path = Path(_text(text, name)).expanduser()
    if not path.is_absolute():
        raise InvalidInput(name, f"{text!r} is not an absolute path")
    return path


def _port(text: str, name: str) -> int:
    value = _integer(text, name)
    if value > 65535:
        raise InvalidInput(name, f"{text!r} is not a port, which is 0 to 65535 (0 lets the system choose)")
    return value


def _integer(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidInput(name, f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str, name: str) -> int:
    value = _integer(text, name)
    if value == 0:
        raise InvalidInput(name, "must be at least 1")
    return value


def _seconds(text: str, name: str) -> float:
    value = parse_duration(text, field=name) / 1e9
    if value <= 0:
        raise InvalidInput(name, f"{text!r}: must be longer than zero")
    return value


def _size(text: str, name: str) -> int:
    return parse_size(text, field=name)


def _output_size(text: str, name: str) -> int:
    size = parse_size(text, field=name)
    if not 1 <= size <= MAX_OUTPUT_BYTES:
        raise InvalidInput(name, f"{text!r}: must be from 1 byte to {format_size(MAX_OUTPUT_BYTES)}")
    return size


def _trace_mode(text: str, name: str) -> TraceMode:
    try:
        return TraceMode(text)
    except ValueError:
        raise InvalidInput(name, f"{text!r} is none of {', '.join(TraceMode)}") from None


def _words(text: str, name: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _http_url(text: str, name: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(name, f"{text!r} is not an http:// or https:// address")
    return text.rstrip("/")


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def parse(text: str, name: str) -> str:
        if text.lower() not in allowed:
            raise InvalidInput(name, f"{text!r} is none of {', '.join(allowed)}")
        return text.lower()

    return parse


def _node(text: str, name: str) -> NodeName:
    return parse_node_name(text, field=name)


def _setting(default: str | None, parse: Callable[[str, str], Any], meaning: str, *, shown: str | None = None) -> Any:
    """``default`` is written as a user would; None means that it is derived, and ``shown`` says from what."""
    return field(metadata={"default": default, "parse": parse, "meaning": meaning, "shown": shown})


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    data_dir: Path = _setting(
        None,
        _path,
        "Where everything is kept: <data_dir>/api (store and artifacts), <data_dir>/volumes (running sessions).",
        shown="/var/lib/bedrock for root, else $XDG_STATE_HOME/bedrock",
    )
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error"), "What is logged: debug, info, warning or error."
    )
    log_format: str = _setting(
        "auto", _choice("auto", "text", "json"), "How: text, json, or auto (text on a terminal, else JSON)."
    )


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    http_host: str = _setting("127.0.0.1", _text, "Address on which the REST interface listens.")
    http_port: int = _setting("8080", _port, "Port of the REST interface.")
    socket_host: str = _setting("127.0.0.1", _text, "Address on which the API waits for DockerDs (ZMQ).")
    socket_port: int = _setting("8081", _port, "Port on which the API waits for DockerDs.")
    store_url: str = _setting(
        None,
        _text,
        "The key-value store: sqlite:///FILE, or sqlite+aiosqlite:///FILE for the asyncio driver.",
        shown="sqlite:///<data_dir>/api/bedrock.db",
    )
    max_upload: int = _setting("64GiB", _size, "The largest request that uploads files.")
    max_connections: int = _setting("2048", _positive, "HTTP connections at once; one more is turned away.")
    graceful_timeout: float = _setting("5s", _seconds, "How long a stopping API waits for requests under way.")
    node_timeout: float = _setting("45s", _seconds, "A node that is silent for longer gets no new sessions.")
    node_lost_after: float = _setting(
        "10m", _seconds, "A node that is silent for longer is lost, and so are its sessions (node_lost)."
    )


@dataclass(frozen=True, kw_only=True)
class DockerdSettings:
    name: NodeName = _setting(None, _node, "This node's name, unique in the fleet.", shown="the host's name")
    api_socket_host: str = _setting(None, _text, "Where the API waits for DockerDs.", shown="[api] socket_host")
    api_socket_port: int = _setting(None, _port, "Port there.", shown="[api] socket_port")
    pull_interval: float = _setting(
        "10s", _seconds, "How long the API may hold the answer to a poll, so the longest time between two polls."
    )
    bedrock_tracer_image: str = _setting(OWN_IMAGE, _text, "The image that traces.")
    slots: int = _setting("8", _positive, "Sessions this node runs at once.")
    docker_host: str = _setting("unix:///var/run/docker.sock", _text, "Address of the Docker Engine.")
    engine_timeout: float = _setting(
        "10m", _seconds, "How long a session that has not started waits for a Docker Engine that is away."
    )
    stop_grace: float = _setting("10s", _seconds, "Time between SIGTERM and SIGKILL when a session is stopped.")
    pull_timeout: float = _setting("30m", _seconds, "How long pulling an image may take.")
    tracer_timeout: float = _setting("60s", _seconds, "How long the tracer may take to start, and to drain at the end.")
    tracer_ring: int = _setting("32MiB", _size, "The tracer's ring buffer in the kernel, for each session.")
    trace_mode: TraceMode = _setting(
        "events", _trace_mode, "How sessions are traced that don't say it: events, summary or off."
    )
    trace_max_size: int = _setting(
        "4GiB",
        _size,
        "Upper size of a trace, where a session names none; 0 is none. What comes after it is counted.",
    )
    max_output: int = _setting(
        "64MiB",
        _output_size,
        "Upper size of what is kept of a session's output, stdout and stderr together, where a session names none. "
        "What is over it is counted. The engine's own log of it takes up to four times as much.",
    )
    other_tracer_capabilities: list[str] = _setting(
        "SYS_ADMIN,SYS_PTRACE", _words, "What a tracer image that is not ours is given; PRIVILEGED is everything."
    )
    other_tracer_binds: list[str] = _setting(
        "/var/run/docker.sock:/var/run/docker.sock,/sys/kernel/debug:/sys/kernel/debug,/lib/modules:/lib/modules:ro",
        _words,
        "What of the host is mounted into a tracer image that is not ours.",
    )
    other_tracer_delay: float = _setting(
        "10s",
        _seconds,
        "How long such a tracer is given to attach, if no file named ready in /logs says earlier that it has.",
    )


@dataclass(frozen=True, kw_only=True)
class FilemdSettings:
    api_url: str = _setting(None, _http_url, "Where the REST interface is.", shown="[api] http_host and http_port")
    poll_interval: float = _setting(
        "10s", _seconds, "How often all volumes are looked at, beside the kernel's notifications."
    )
    retry_max: float = _setting("1m", _seconds, "The longest pause before a failed upload is tried again.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    common: CommonSettings
    api: ApiSettings
    dockerd: DockerdSettings
    filemd: FilemdSettings

    @property
    def volumes_dir(self) -> Path:
        """Where the volumes of running and finished sessions are, shared by DockerD and FileMD."""
        return self.common.data_dir / "volumes"


@dataclass(frozen=True)
class SettingInfo:
    """One setting as documentation and the command line need it."""

    section: str  # "" for the common ones
    key: str
    default: str | None
    shown_default: str
    meaning: str
    parse: Callable[[str, str], Any]

    @property
    def flag(self) -> str:
        return "--" + "-".join(filter(None, (self.section, self.key))).replace("_", "-")

    @property
    def env(self) -> str:
        return ENV_PREFIX + "_".join(filter(None, (self.section, self.key))).upper()

    @property
    def name(self) -> str:
        return f"[{self.section}] {self.key}" if self.section else self.key


_SECTIONS: dict[str, type] = {
    "": CommonSettings,
    "api": ApiSettings,
    "dockerd": DockerdSettings,
    "filemd": FilemdSettings,
}


def all_settings() -> list[SettingInfo]:
    """Every setting, in the order in which the file shows them."""
    return [
        SettingInfo(
            section,
            item.name,
            item.metadata["default"],
            item.metadata["shown"] or item.metadata["default"],
            item.metadata["meaning"],
            item.metadata["parse"],
        )
        for section, kind in _SECTIONS.items()
        for item in fields(kind)
    ]


def load_settings(
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Return the settings in force.

    ``flags`` maps a flag (``--api-http-port``) to its text. ``config`` is the file; without it ``BEDROCK_CONFIG`` is
    looked at. Raises :class:`InvalidInput` naming the flag, variable or file and key that is wrong.
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get("BEDROCK_CONFIG"):
        config = Path(environ["BEDROCK_CONFIG"])
    table = {(info.section, info.key): info for info in all_settings()}
    given: dict[tuple[str, str], tuple[str, str]] = {}  # -> (text, the name under which the user gave it)
    if config is not None:
        given.update(_read_file(config, table))
    given.update(_read_environment(environ, table))
    by_flag = {info.flag: key for key, info in table.items()}
    for flag, text in (flags or {}).items():
        given[by_flag[flag]] = (text, flag)
    values = {}
    for key, info in table.items():
        if key in given:
            values[key] = info.parse(*given[key])
        elif info.default is not None:
            values[key] = info.parse(info.default, info.name)
    _derive(values, environ)
    sections = {
        section: kind(**{item.name: values[section, item.name] for item in fields(kind)})
        for section, kind in _SECTIONS.items()
    }
    return Settings(
        common=cast("CommonSettings", sections[""]),
        api=cast("ApiSettings", sections["api"]),
        dockerd=cast("DockerdSettings", sections["dockerd"]),
        filemd=cast("FilemdSettings", sections["filemd"]),
    )


def _read_file(path: Path, table: Mapping[tuple[str, str], SettingInfo]) -> dict[tuple[str, str], tuple[str, str]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput("--config", f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("--config", f"{path} is not TOML: {error}") from None
    flat: dict[tuple[str, str], object] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat.update({(key, inner): item for inner, item in value.items()})
        else:
            flat["", key] = value
    found = {}
    for (section, key), value in flat.items():
        name = f"{path}: [{section}] {key}" if section else f"{path}: {key}"
        if (section, key) not in table:
            known = sorted(k for s, k in table if s == section) or sorted(s for s in _SECTIONS if s)
            raise InvalidInput(name, f"there is no such setting; there are: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidInput(name, f"{value!r} must be a string or a whole number")
        found[section, key] = (str(value), name)
    return found


def _read_environment(
    environ: Mapping[str, str], table: Mapping[tuple[str, str], SettingInfo]
) -> dict[tuple[str, str], tuple[str, str]]:
    known = {info.env: key for key, info in table.items()}
    found = {}
    for name, text in environ.items():
        if name in known:
            found[known[name]] = (text, name)
        elif any(name.startswith(f"{ENV_PREFIX}{section.upper()}_") for section in _SECTIONS if section):
            # A misspelt variable would otherwise be silently without effect.
            raise InvalidInput(name, "there is no such setting; `bedrock up --help` lists them")
    return found


def _derive(values: dict[tuple[str, str], Any], environ: Mapping[str, str]) -> None:
    """Fill in the defaults that follow from other settings."""
    if ("", "data_dir") not in values:
        if os.geteuid() == 0:
            values["", "data_dir"] = Path("/var/lib/bedrock")
        else:
            state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
            values["", "data_dir"] = Path(state) / "bedrock"
    values.setdefault(("api", "store_url"), f"sqlite:///{values['', 'data_dir']}/api/bedrock.db")
    if ("dockerd", "name") not in values:
        values["dockerd", "name"] = parse_node_name(socket.gethostname() or "localhost", field="[dockerd] name")
    values.setdefault(("dockerd", "api_socket_host"), reachable_host(values["api", "socket_host"]))
    values.setdefault(("dockerd", "api_socket_port"), values["api", "socket_port"])
    host = reachable_host(values["api", "http_host"])
    bracketed = f"[{host}]" if ":" in host else host
    values.setdefault(("filemd", "api_url"), f"http://{bracketed}:{values['api', 'http_port']}")


def reachable_host(host: str) -> str:
    """The address at which a server that listens on ``host`` can be reached from the same machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)


def example_config() -> str:
    """Return the text of ``conf/bedrock.toml``: every setting with its default and meaning, commented out."""
    lines = [
        "# Settings of Bedrock. Each line shows a default; remove the '#' in front to change it.",
        "# A flag (--api-http-port) or a variable (BEDROCK_API_HTTP_PORT) overrides what stands here.",
    ]
    section = None
    for info in all_settings():
        if info.section != section:
            section = info.section
            lines += ["", f"[{section}]"] if section else [""]
        lines.append(f"# {info.meaning}")
        if info.default is None:
            lines.append(f'# {info.key} = ""  # default: {info.shown_default}')
        else:
            value = info.default if info.default.isdigit() else f'"{info.default}"'
            lines.append(f"# {info.key} = {value}")
    return "\n".join(lines) + "\n"
