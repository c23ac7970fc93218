"""The commands, as people and scripts use them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import trio
from engine_facts import VERSE
from make_image import make_image, remove_image
from processes import Fleet

from bedrock.client import Client
from bedrock.model import Status
from bedrock.tracer import OWN_IMAGE
from bedrock.tracer.causes import FEATURES


def last_session(fleet: Fleet) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(fleet.command("ps", "-n", "1", "--json").stdout)
    return found[0]


def test_a_session_can_be_followed_from_run_to_rm(running_fleet: Fleet, image: str) -> None:
    fleet = running_fleet
    done = fleet.command("run", "--label", "team=io", image, "cat", "/srv/verse.txt")
    assert (done.returncode, done.stdout) == (0, VERSE)
    assert b"trace complete" in done.stderr
    session_id = str(last_session(fleet)["id"])
    assert session_id.encode() in fleet.command("ps", "--label", "team=io").stdout
    shown = fleet.command("show", session_id).stdout.decode()
    assert "finished" in shown
    assert "trace.bdt" in shown
    assert json.loads(fleet.command("show", session_id, "--json").stdout)["exit_code"] == 0
    assert fleet.command("logs", session_id).stdout == VERSE
    assert fleet.command("logs", session_id, "stdout.log").stdout == VERSE
    assert b"stdout.log" in fleet.command("logs", session_id, "--list").stdout
    assert json.loads(fleet.command("trace", session_id, "--json").stdout)["is_whole"] is True
    assert b"alpha" in fleet.command("nodes").stdout
    assert fleet.command("rm", session_id).returncode == 0
    gone = fleet.command("show", session_id)
    assert gone.returncode == 125
    assert gone.stderr.decode().strip() == f"bedrock: there is no session {session_id}"


async def test_a_detached_run_prints_the_id_and_stop_stops_it(running_fleet: Fleet, client: Client, image: str) -> None:
    done = running_fleet.command("run", "-d", image, "sleep", "60")
    session_id = done.stdout.decode().strip()
    assert running_fleet.command("stop", session_id).returncode == 0
    with trio.fail_after(30):
        states = [session async for session in client.watch(session_id, until_stored=True)]
    assert states[-1].status is Status.STOPPED
    again = running_fleet.command("stop", session_id)
    assert again.returncode == 125
    assert b"an ended session never changes" in again.stderr


def test_ctrl_c_stops_the_session_and_run_exits_with_130(running_fleet: Fleet, image: str) -> None:
    command = [sys.executable, "-m", "bedrock", "run", "--ttl", "60s", image, "sleep", "60"]
    environment = {**os.environ, "BEDROCK_URL": running_fleet.url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (sessions := json.loads(running_fleet.command("ps", "--status", "running", "--json").stdout)):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(running_fleet.command("show", sessions[0]["id"], "--json").stdout)["status"] == "stopped"


def test_what_is_wrong_is_said_in_one_line(running_fleet: Fleet, image: str) -> None:
    for arguments, words in (
        (["run", "--ttl", "soon", image], "ttl: 'soon'"),
        (["run", "UPPER CASE"], "image: "),
        (["show", "nonsense"], "is not a session id"),
        (["trace", "01a20a5a-f1dc-771c-a61f-2efdc4734108"], "there is no session"),
    ):
        done = running_fleet.command(*arguments)
        assert done.returncode == 125
        assert words in done.stderr.decode()
        assert len(done.stderr.decode().strip().splitlines()) == 1


def test_without_an_api_the_commands_say_how_to_get_one(fleet: Fleet) -> None:
    done = fleet.command("ps")
    assert done.returncode == 125
    assert b"`bedrock up` starts one here" in done.stderr


def test_doctor_finds_this_host_fit_and_traces_a_session_here(running_fleet: Fleet) -> None:
    done = running_fleet.command("doctor", "--json")
    findings = {item["name"]: item for item in json.loads(done.stdout)}
    assert done.returncode == 0, findings
    assert all(item["is_fine"] for item in findings.values())
    assert set(findings) >= {"kernel", "probes", "cgroups", "engine privileges", "tracer image", "self-test"}
    assert findings["probes"]["found"].startswith("load, and are attached in ")
    assert findings["calls are seen by"]["found"].startswith(("raw tracepoints", "perf events"))
    # Whatever this kernel gives, each feature is named once, and those that it lacks with what traces are without.
    shown = findings["kernel features"]["found"]
    for feature, what in FEATURES.items():
        assert len(re.findall(rf"\b{(feature.name or '').lower()}\b", shown)) == 1, shown
        assert (what in shown) == (f"{(feature.name or '').lower()} (" in shown)
    assert findings["self-test"]["found"].startswith("a session read a secret, and its trace tells of it")
    # Nothing of it is left.
    assert not list(running_fleet.data_dir.glob("doctor-*"))
    images = subprocess.run(["docker", "images", "-q", "bedrock/selftest"], capture_output=True, check=True)
    assert images.stdout == b""


def test_doctor_says_what_to_do_when_there_is_no_engine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedrock", "doctor"],
        env={
            **os.environ,
            "BEDROCK_DATA_DIR": str(tmp_path),
            "BEDROCK_DOCKERD_DOCKER_HOST": "unix:///nowhere",
            "COLUMNS": "200",
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"MISSING" in done.stdout
    assert b"apt-get install docker.io" in done.stdout
    assert b"self-test" not in done.stdout


@contextmanager
def tracer_image_that_says(answer: str, exit_code: int) -> Iterator[str]:
    """An image with the labels of our own tracer, in which ``bdtrace`` prints one line and does nothing."""
    client = docker.from_env()
    labels = client.images.get(OWN_IMAGE).labels
    client.close()
    program = f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {exit_code}\n".encode()
    make_image(
        "bedrock-test/refused:1", {"bin/bdtrace": program},
        ["ENV PATH=/bin", *(f"LABEL {name}={value}" for name, value in labels.items())],
    )  # fmt: skip
    try:
        yield "bedrock-test/refused:1"
    finally:
        remove_image("bedrock-test/refused:1")


REFUSAL = "the kernel refused the probe on_exit: Permission denied; the verifier's last words: R1 invalid mem access"


@pytest.mark.parametrize(
    ("answer", "exit_code", "found"),
    [
        (
            '{"loads":false,"attach_ms":3.1,"preemptible":false,"events":false,"unsupported":[],'
            f'"error":"{REFUSAL}"}}',
            1,
            f"don't load: {REFUSAL}",
        ),
        ("Illegal instruction", 132, "`bdtrace --check` ended with 132 and said: Illegal instruction"),
    ],
    ids=["the kernel refuses them", "the loader dies"],
)
def test_doctor_shows_why_the_probes_do_not_load(tmp_path: Path, answer: str, exit_code: int, found: str) -> None:
    with tracer_image_that_says(answer, exit_code) as tracer:
        done = subprocess.run(
            [sys.executable, "-m", "bedrock", "doctor", "--json"],
            env={
                **os.environ,
                "BEDROCK_DATA_DIR": str(tmp_path),
                "BEDROCK_DOCKERD_BEDROCK_TRACER_IMAGE": tracer,
            },
            capture_output=True,
            check=False,
        )
    assert done.returncode == 1
    (wrong,) = [item for item in json.loads(done.stdout) if not item["is_fine"]]
    assert (wrong["name"], wrong["found"]) == ("probes", found)
    assert wrong["remedy"]
    left = subprocess.run(["docker", "ps", "-aq", "-f", "name=bedrock-probe-check"], capture_output=True, check=True)
    assert left.stdout == b""


def test_doctor_does_not_trust_a_tracer_that_is_there_but_does_not_work(running_fleet: Fleet, image: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedrock", "doctor", "--json"],
        env={
            **os.environ,
            "BEDROCK_DATA_DIR": str(running_fleet.data_dir),
            "BEDROCK_DOCKERD_BEDROCK_TRACER_IMAGE": image,
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    (wrong,) = [item for item in json.loads(done.stdout) if not item["is_fine"]]
    assert wrong["name"] == "self-test"
    assert "tracer" in wrong["found"]
    assert wrong["remedy"]


def test_a_dockerd_without_its_tracer_image_says_how_to_make_it(fleet: Fleet) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedrock.dockerd", "--dockerd-bedrock-tracer-image", "bedrock-test/none:1"],
        env={**os.environ, "BEDROCK_DATA_DIR": str(fleet.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "`bedrock tracer build` makes it" in done.stderr
    assert "Traceback" not in done.stderr
