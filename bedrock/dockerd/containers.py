"""The two containers of a session: what they are called and how they are made. Pure."""

from __future__ import annotations

from bedrock.dockerd.engine_values import ContainerPlan, ImageInfo
from bedrock.model import SessionId
from bedrock.volume import GATE_MOUNT, LOGS_MOUNT, OrderRecord, SessionVolume

LABEL_SESSION = "bedrock.session"
LABEL_NODE = "bedrock.node"
LABEL_ROLE = "bedrock.role"
LABEL_STOP_SIGNAL = "bedrock.stop-signal"
# Carried by our own tracer image; any other image is given the bare command.
LABEL_TRACER = "bedrock.tracer"


class Pair:
    """The names of a session's containers."""

    def __init__(self, session_id: SessionId) -> None:
        self.target = f"bedrock-target-{session_id}"
        self.tracer = f"bedrock-tracer-{session_id}"


def target_plan(record: OrderRecord, volume: SessionVolume, image: ImageInfo) -> ContainerPlan:
    """The target, held at the gate: the gate is its entrypoint, and execs the image's own with its command.

    A command in the order replaces the image's CMD and leaves its ENTRYPOINT, as with ``docker run``.
    """
    return ContainerPlan(
        name=Pair(record.session_id).target,
        image=image.id,
        entrypoint=[f"{GATE_MOUNT}/gate"],
        command=image.entrypoint + (record.order.command or image.cmd),
        labels=_labels(record, "target") | {LABEL_STOP_SIGNAL: image.stop_signal},
        binds=[f"{volume.gate_path}:{GATE_MOUNT}:ro"],
        init=record.order.init,
    )


def tracer_plan(record: OrderRecord, volume: SessionVolume, image: ImageInfo, ring_bytes: int) -> ContainerPlan:
    """The tracer: the host's PID namespace and two capabilities, no network, no privileges beside them."""
    pair = Pair(record.session_id)
    command = ["bdtrace", "--container", pair.target, "-o", LOGS_MOUNT]
    if LABEL_TRACER in image.labels:
        command += ["--ring-bytes", str(ring_bytes)]
    return ContainerPlan(
        name=pair.tracer,
        image=image.id,
        command=command,
        labels=_labels(record, "tracer"),
        binds=[f"{volume.name}:{LOGS_MOUNT}:rw"],
        cap_add=["SYS_ADMIN", "SYS_PTRACE"],
        pid_mode="host",
        network_mode="none",
        # Where AppArmor is on, Docker's profile forbids to look at processes outside the container.
        security_opt=["apparmor=unconfined"],
    )


def _labels(record: OrderRecord, role: str) -> dict[str, str]:
    return {LABEL_SESSION: record.session_id, LABEL_NODE: record.node, LABEL_ROLE: role}
