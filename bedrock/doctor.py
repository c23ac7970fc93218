"""What this host brings for running and tracing sessions, point by point, each with its remedy."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import docker.errors
import msgspec
import requests

from bedrock.probe_check import CheckFailed, ProbeCheck, check_probes
from bedrock.settings import DockerdSettings, Settings
from bedrock.tracer import LABEL_TRACER, OWN_IMAGE
from bedrock.tracer.build import provide_image
from bedrock.tracer.causes import FEATURES
from bedrock.tracer.compile import BuildFailed
from bedrock.tracer.programs import carried_programs, is_current

_CAP_SYS_ADMIN, _CAP_SYS_PTRACE = 21, 19
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``remedy`` is empty where nothing needs to be done."""

    name: str
    is_fine: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; never raises for what is missing. Blocks for some seconds, in which the probes are loaded."""
    return [
        _finding("kernel", True, f"{platform.release()} ({platform.machine()})", ""),
        _types(),
        _lockdown(),
        _capabilities(),
        _data_dir(settings),
        *_engine(settings),
    ]


async def try_out(settings: Settings) -> Finding:
    """Run the self-test, in a Bedrock of its own; never raises for what does not work."""
    from bedrock.selftest import SelfTestFailed, run_self_test

    try:
        return _finding("self-test", True, await run_self_test(settings), "")
    except SelfTestFailed as error:
        return _finding("self-test", False, str(error), "see the lines above; --log-level info shows what happened")


def _finding(name: str, is_fine: bool, found: str, remedy: str) -> Finding:
    return Finding(name=name, is_fine=is_fine, found=found, remedy="" if is_fine else remedy)


def _types() -> Finding:
    is_there = _KERNEL_TYPES.exists()
    found = "there" if is_there else "not there"
    return _finding("kernel types (BTF)", is_there, found, "use a kernel built with CONFIG_DEBUG_INFO_BTF=y")


def _lockdown() -> Finding:
    try:
        mode = _LOCKDOWN.read_text().strip()
    except OSError:
        mode = "none"
    remedy = "a kernel in lockdown=confidentiality lets no program read its memory; start it with lockdown=integrity"
    return _finding("kernel lockdown", "[confidentiality]" not in mode, mode, remedy)


def _capabilities() -> Finding:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bounding = int(line.split()[1], 16)
            missing = [
                name
                for name, bit in (("SYS_ADMIN", _CAP_SYS_ADMIN), ("SYS_PTRACE", _CAP_SYS_PTRACE))
                if not bounding >> bit & 1
            ]
            remedy = "the tracer's container is given these by the engine; the host itself must not have dropped them"
            return _finding("capabilities", not missing, f"lacks {', '.join(missing)}" if missing else "enough", remedy)
    return _finding("capabilities", False, "unknown", "/proc/self/status has no CapBnd")


def _data_dir(settings: Settings) -> Finding:
    path = settings.common.data_dir
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    is_fine = os.access(existing, os.W_OK)
    return _finding("data_dir", is_fine, str(path), f"{existing} can't be written to; set data_dir, or run as root")


def _engine(settings: Settings) -> list[Finding]:
    own = settings.dockerd
    try:
        client = docker.DockerClient(own.docker_host, version="auto", timeout=30)
    except docker.errors.DockerException as error:
        remedy = "start the Docker Engine (on Debian: apt-get install docker.io), or set [dockerd] docker_host"
        return [_finding("Docker Engine", False, str(error)[:120], remedy)]
    try:
        info = client.info()
        return [
            _finding("Docker Engine", True, f"{info['ServerVersion']}, {info.get('Driver')}", ""),
            _cgroups(info),
            _privileges(info),
            tracer := _tracer_image(client, own.bedrock_tracer_image, str(info["Architecture"])),
            *(_probes(client, own) if tracer.is_fine else []),
        ]
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        return [_finding("Docker Engine", False, str(error)[:120], "look at the engine's own log")]
    finally:
        client.close()


def _cgroups(info: Mapping[str, Any]) -> Finding:
    """Either version and driver will do; without the memory controller nobody sees that a container ran out of it."""
    found = f"v{info.get('CgroupVersion', '1')}, driver {info.get('CgroupDriver')}"
    has_memory = bool(info.get("MemoryLimit"))
    remedy = "oom_killed can't be told from other ends; start the kernel with cgroup_enable=memory"
    return _finding("cgroups", has_memory, found if has_memory else f"{found}, without the memory controller", remedy)


def _privileges(info: Mapping[str, Any]) -> Finding:
    """What the engine can give the tracer: host PIDs, SYS_ADMIN and SYS_PTRACE in the host's own user namespace."""
    options = info.get("SecurityOptions") or []
    if any("name=rootless" in option for option in options):
        return _finding("engine privileges", False, "the engine is rootless", "run the engine as root to trace with it")
    if any("name=userns" in option for option in options):
        return _finding(
            "engine privileges", False, "the engine remaps users (userns-remap)", "run the engine without userns-remap"
        )
    return _finding("engine privileges", True, "enough for the tracer", "")


def _tracer_image(client: docker.DockerClient, name: str, machine: str) -> Finding:
    """The image that is configured, and where that is none of ours the one that lends it the gate."""
    needed = name
    try:
        image = client.images.get(name)
        if LABEL_TRACER not in image.labels:
            needed = OWN_IMAGE
            image = client.images.get(OWN_IMAGE)
        state = "" if is_current(needed, image.labels, machine) else "is of other sources than this Bedrock"
    except docker.errors.ImageNotFound:
        state = "is not there"
    if state and needed == OWN_IMAGE and carried_programs(machine):
        return _finding("tracer image", True, f"{needed} will be made when a DockerD starts", "")
    if state:
        return _finding("tracer image", False, f"{needed} {state}", _building(needed, name))
    return _finding("tracer image", True, name if needed == name else f"{name}, with the gate of {needed}", "")


def _probes(client: docker.DockerClient, own: DockerdSettings) -> list[Finding]:
    """Whether the probes load on the Docker host, and what its kernel lets them see. Nothing but loading them tells."""
    name = own.bedrock_tracer_image
    try:
        provide_image(name, own.docker_host)
        image = client.images.get(name)
        if LABEL_TRACER not in image.labels:
            return [_finding("probes", True, f"not tried: {name} is a tracer of another make", "")]
        check = check_probes(client, str(image.id))
    except (BuildFailed, CheckFailed) as error:
        return [_finding("probes", False, str(error), "bedrock tracer build --force")]
    if not check.loads:
        remedy = "sessions that ask for no trace (--trace off) run here; for traces, run another kernel"
        return [_finding("probes", False, f"don't load: {check.error}", remedy)]
    return [
        _finding("probes", True, f"load, and are attached in {check.attach_ms:.0f} ms", ""),
        _finding("calls are seen by", True, _door(check), ""),
        _finding("kernel features", True, _features(check.unsupported), ""),
    ]


def _door(check: ProbeCheck) -> str:
    """How the probes get to see system calls, and why so."""
    if check.events:
        return "perf events: on this kernel a task may lose the processor within a probe"
    if check.preemptible:
        return (
            "raw tracepoints, though a task may lose the processor within a probe on this kernel; calls that are not "
            "seen then are counted (probe_missed, probe_skipped)"
        )
    return "raw tracepoints"


def _features(unsupported: Sequence[str]) -> str:
    names = {(feature.name or "").lower(): what for feature, what in FEATURES.items()}
    lacking = [f"{name} ({names.get(name, 'unknown to this Bedrock')})" for name in unsupported]
    given = [name for name in names if name not in unsupported]
    if not lacking:
        return f"all of them: {', '.join(given)}"
    return f"{', '.join(given) or 'none'}; traces lack {'; '.join(lacking)}"


def _building(needed: str, configured: str) -> str:
    return "bedrock tracer build" if needed == configured else f"bedrock tracer build --image {needed}"
