"""Loads the probes on a Docker host for real, in a container as the tracer has it, and says what came of it."""

from __future__ import annotations

import secrets

import docker
import docker.errors
import msgspec
import requests

from bedrock.dockerd.containers import probe_check_plan
from bedrock.errors import BedrockError
from bedrock.untrusted import MalformedJson, decode_json

_LIMIT_S = 60  # loading takes a second or less; an emulated machine takes longer
_LAST_WORDS = 500
_MAX_PRINTED_BYTES = 1 << 20


class CheckFailed(BedrockError):
    """The program that loads the probes did not come to an answer; the text says how it ended."""


class ProbeCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a kernel lets the probes see.

    ``error`` is a sentence where they don't load. ``preemptible`` says that a task may lose the processor within a
    probe, ``events`` that calls are seen through perf events for that reason. ``unsupported`` names the features that
    the kernel lacks; where the probes don't load it says nothing.
    """

    loads: bool
    attach_ms: float
    preemptible: bool
    events: bool
    unsupported: list[str]
    error: str


def check_probes(client: docker.DockerClient, image_id: str) -> ProbeCheck:
    """Run ``bdtrace --check`` of a tracer image. Blocks for about a second. Raises :class:`CheckFailed`."""
    try:
        code, printed, complaints = _run(client, image_id)
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise CheckFailed(f"`bdtrace --check` can't be run: {error}") from None
    try:
        return decode_json(printed, ProbeCheck, max_bytes=_MAX_PRINTED_BYTES)
    except MalformedJson:
        said = (complaints or printed).decode("utf-8", "replace").strip()[-_LAST_WORDS:]
        raise CheckFailed(f"`bdtrace --check` ended with {code} and said: {said or 'nothing'}") from None


def _run(client: docker.DockerClient, image_id: str) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr."""
    plan = probe_check_plan(image_id, f"bedrock-probe-check-{secrets.token_hex(6)}")
    container = client.containers.create(
        plan.image, list(plan.command), name=plan.name, cap_add=list(plan.cap_add), pid_mode=plan.pid_mode,
        network_mode=plan.network_mode, security_opt=list(plan.security_opt),
    )  # fmt: skip
    try:
        container.start()
        code = int(container.wait(timeout=_LIMIT_S)["StatusCode"])
        return code, container.logs(stdout=True, stderr=False), container.logs(stdout=False, stderr=True)
    finally:
        container.remove(force=True)
