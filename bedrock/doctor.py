"""What this host brings for running and tracing sessions, point by point, each with its remedy."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import docker
import docker.errors
import msgspec
import requests

from bedrock.settings import Settings
from bedrock.tracer.build import LABEL_DIGEST, PACKAGES, missing_tools, source_digest

_OLDEST_KERNEL = (5, 17)  # bpf_loop, and task storage for raw tracepoints
_CAP_SYS_ADMIN, _CAP_SYS_PTRACE = 21, 19


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``remedy`` is empty where nothing needs to be done."""

    name: str
    is_fine: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; never raises for what is missing."""
    return [_kernel(), _btf(), _capabilities(), _data_dir(settings), *_engine(settings)]


def _finding(name: str, is_fine: bool, found: str, remedy: str) -> Finding:
    return Finding(name=name, is_fine=is_fine, found=found, remedy="" if is_fine else remedy)


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    return _finding("kernel", numbers >= _OLDEST_KERNEL, release, "tracing needs Linux 5.17 or later")


def _btf() -> Finding:
    path = Path("/sys/kernel/btf/vmlinux")
    found = "there" if path.exists() else "not there"
    return _finding("kernel types (BTF)", path.exists(), found, "use a kernel built with CONFIG_DEBUG_INFO_BTF=y")


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
        client = docker.DockerClient(own.docker_host, version="auto", timeout=10)
    except docker.errors.DockerException as error:
        remedy = "start the Docker Engine (on Debian: apt-get install docker.io), or set [dockerd] docker_host"
        return [_finding("Docker Engine", False, str(error)[:120], remedy)]
    try:
        info = client.info()
        found = f"{info['ServerVersion']}, {info.get('CgroupDriver')}, cgroup v{info.get('CgroupVersion', '1')}"
        return [_finding("Docker Engine", True, found, ""), _tracer_image(client, own.bedrock_tracer_image)]
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        return [_finding("Docker Engine", False, str(error)[:120], "look at the engine's own log")]
    finally:
        client.close()


def _tracer_image(client: docker.DockerClient, name: str) -> Finding:
    try:
        image = client.images.get(name)
    except docker.errors.ImageNotFound:
        tools = missing_tools()
        first = f"apt-get install {' '.join(PACKAGES)}; then " if tools else ""
        return _finding("tracer image", False, f"{name} is not there", f"{first}bedrock tracer build")
    digest = image.labels.get(LABEL_DIGEST)
    if digest is not None and digest != source_digest():
        return _finding("tracer image", False, f"{name} is of other sources than this Bedrock", "bedrock tracer build")
    return _finding("tracer image", True, name, "")
