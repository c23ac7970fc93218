"""The containers of sessions and of their tracers: what they are called and how they are made. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from bedrock.dockerd.engine_values import ContainerPlan, ImageInfo
from bedrock.model import NodeName, SessionId, TraceMode
from bedrock.tracer import LABEL_TRACER
from bedrock.tracer.operations import CLASSES
from bedrock.volume import GATE_MOUNT, LOGS_MOUNT, OrderRecord, SessionVolume

LABEL_SESSION = "bedrock.session"
LABEL_NODE = "bedrock.node"
LABEL_ROLE = "bedrock.role"
LABEL_STOP_SIGNAL = "bedrock.stop-signal"
LABEL_VOLUMES = "bedrock.volumes"  # of a host's tracer: the directory of the sessions that it serves
ROLE_HOST_TRACER = "host-tracer"

# In the tracer of a host: where it listens, and where the sessions' directories are.
CONTROL_MOUNT = "/control"
VOLUMES_MOUNT = "/volumes"

# The engine's log of a target is needed after a restart, from its beginning. It has two files, and some thirty bytes
# beside each line: output that is not over max_output is in it whole if its lines have ten bytes or more.
_MIN_LOG_BYTES = 1 << 20

_TRACER_CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE")
# Where AppArmor is on, Docker's profile forbids to look at processes outside the container.
_TRACER_SECURITY = ("apparmor=unconfined",)


class Pair:
    """The names of a session's containers. Only a tracer of another make has one for each session."""

    def __init__(self, session_id: SessionId) -> None:
        self.target = f"bedrock-target-{session_id}"
        self.tracer = f"bedrock-tracer-{session_id}"


def target_plan(record: OrderRecord, volume: SessionVolume, image: ImageInfo) -> ContainerPlan:
    """The target, held at the gate: the gate is its entrypoint, and execs the image's own with its command.

    A command in the order replaces the image's CMD and leaves its ENTRYPOINT, as with ``docker run``. Without a tracer
    there is no gate either.
    """
    is_held = record.order.trace.mode is not TraceMode.OFF
    command = image.entrypoint + (record.order.command or image.cmd)
    return ContainerPlan(
        name=Pair(record.session_id).target,
        image=image.id,
        entrypoint=[f"{GATE_MOUNT}/gate"] if is_held else command[:1],
        command=command if is_held else command[1:],
        labels=_labels(record, "target") | {LABEL_STOP_SIGNAL: image.stop_signal},
        binds=[f"{volume.gate_path}:{GATE_MOUNT}:ro"] if is_held else [],
        init=record.order.init,
        log_bytes=max(_MIN_LOG_BYTES, 2 * (record.order.max_output or 0)),
    )


class ForeignNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracer image that is not ours is given beside the volume and the host's PID namespace."""

    capabilities: list[str]
    binds: list[str]


PRIVILEGED = "PRIVILEGED"


def is_ours(image: ImageInfo) -> bool:
    """Whether this is our own tracer, which opens the gate itself and says what it has lost."""
    return LABEL_TRACER in image.labels


def foreign_tracer_plan(
    record: OrderRecord, volume: SessionVolume, image: ImageInfo, needs: ForeignNeeds
) -> ContainerPlan:
    """A tracer of another make: `bdtrace --container NAME -o /logs`, with what the node's operator grants it."""
    pair = Pair(record.session_id)
    is_privileged = PRIVILEGED in needs.capabilities
    return ContainerPlan(
        name=pair.tracer,
        image=image.id,
        command=["bdtrace", "--container", pair.target, "-o", LOGS_MOUNT],
        labels=_labels(record, "tracer"),
        binds=[f"{volume.name}:{LOGS_MOUNT}:rw", *needs.binds],
        cap_add=[] if is_privileged else needs.capabilities,
        privileged=is_privileged,
        pid_mode="host",
        security_opt=["apparmor=unconfined"],
    )


def host_tracer_prefix(node: NodeName) -> str:
    """How the names of a node's tracers begin."""
    return f"bedrock-tracer-{node}-"


def host_tracer_name(node: NodeName, volumes: Path, image: ImageInfo) -> str:
    """The name of a node's tracer of a certain image.

    Another DockerD on the same engine may have the same name, with a data directory of its own, and has its own tracer.
    """
    place = hashlib.sha256(str(volumes).encode()).hexdigest()
    return f"{host_tracer_prefix(node)}{place[:8]}-{image.id.removeprefix('sha256:')[:12]}"


def host_tracer_plan(
    image: ImageInfo, *, node: NodeName, control: Path, volumes: Path, ring_bytes: int
) -> ContainerPlan:
    """Our tracer, which serves all sessions of a node: the host's PID namespace and two capabilities, no network.

    ``control`` is the directory in which it listens for requests, ``volumes`` that of the sessions' directories.
    """
    return ContainerPlan(
        name=host_tracer_name(node, volumes, image),
        image=image.id,
        command=["bdtrace", "--serve", f"{CONTROL_MOUNT}/sock", "--ring-bytes", str(ring_bytes)],
        labels={LABEL_NODE: node, LABEL_ROLE: ROLE_HOST_TRACER, LABEL_VOLUMES: str(volumes)},
        binds=[f"{control}:{CONTROL_MOUNT}:rw", f"{volumes}:{VOLUMES_MOUNT}:rw"],
        cap_add=_TRACER_CAPABILITIES,
        pid_mode="host",
        network_mode="none",
        security_opt=_TRACER_SECURITY,
    )


def probe_check_plan(image_id: str, name: str) -> ContainerPlan:
    """A container that loads the probes, says what came of it, and ends. It has the privileges of a host's tracer."""
    return ContainerPlan(
        name=name,
        image=image_id,
        command=["bdtrace", "--check"],
        labels={},
        binds=[],
        cap_add=_TRACER_CAPABILITIES,
        pid_mode="host",
        network_mode="none",
        security_opt=_TRACER_SECURITY,
    )


def tracer_options(record: OrderRecord, ring_bytes: int) -> list[str]:
    """How our tracer is to trace a session, as its command line has it."""
    wanted = record.order.trace
    options = ["-o", f"{VOLUMES_MOUNT}/{record.session_id}", "--ring-bytes", str(ring_bytes)]
    options += ["--mode", wanted.mode or TraceMode.EVENTS, "--max-bytes", str(wanted.max_size or 0)]
    for path in wanted.paths:
        options += ["--path", path]
    if wanted.classes:
        options += ["--ops", ",".join(str(int(op)) for name in wanted.classes for op in sorted(CLASSES[name]))]
    return options


def _labels(record: OrderRecord, role: str) -> dict[str, str]:
    return {LABEL_SESSION: record.session_id, LABEL_NODE: record.node, LABEL_ROLE: role}
