"""What concerns this host: building the tracer, and what is missing for tracing."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from bedrock.cli.output import fail, print_json, print_table, say_lines
from bedrock.errors import BedrockError
from bedrock.logconfig import configure_logging
from bedrock.settings import Settings, load_settings


@click.group()
def tracer() -> None:
    """The image that traces."""


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config=config)
    except BedrockError as error:
        fail(error, 1)


@tracer.command()
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).  [BEDROCK_CONFIG]")
@click.option("--image", metavar="NAME:TAG", help="What to call it.  [the setting bedrock_tracer_image]")
@click.option("--from-source", is_flag=True, help="Compile even if this installation carries the programs.")
@click.option("--builder", metavar="IMAGE", help="Compile in a container of this image.  [with this host's tools]")
@click.option("--force", is_flag=True, help="Build also when the image is up to date.")
def build(config: Path | None, image: str | None, from_source: bool, builder: str | None, force: bool) -> None:
    """Make the tracer image.

    A platform wheel carries the compiled programs, and `bedrock up` and DockerD make the image of them by themselves.
    Where there are none they are compiled from the sources that come with Bedrock. With clang, gcc, bpftool and libbpf
    on this host that takes a few seconds and no network. Where they are missing or fail it is done in a container of
    debian:bookworm-slim, or of what --builder names: a Debian, or an image that brings these tools.
    """
    from bedrock.tracer.build import build_tracer_image

    own = _settings(config).dockerd
    try:
        name = image or own.bedrock_tracer_image
        build_tracer_image(name, own.docker_host, builder=builder, from_source=from_source, force=force, say=say_lines)
    except BedrockError as error:
        fail(error, 1)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).  [BEDROCK_CONFIG]")
@click.option("--self-test/--no-self-test", default=True, show_default=True, help="Trace a session here, and look.")
@click.option("--log-level", default="error", show_default=True, help="What the self-test logs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of a table.")
def doctor(config: Path | None, self_test: bool, log_level: str, as_json: bool) -> None:
    """Say what this host can do for Bedrock, and what to do about what it can't.

    When nothing is missing, a session is run and traced in a Bedrock of its own, which takes some seconds. Exits with 1
    when something is missing that sessions need.
    """
    from bedrock.doctor import examine, try_out

    settings = _settings(config)
    try:
        configure_logging(log_level)
    except BedrockError as error:
        fail(error, 1)
    findings = examine(settings)
    if self_test and all(item.is_fine for item in findings):
        findings.append(trio.run(try_out, settings))
    if as_json:
        print_json(findings)
    else:
        rows = [["ok" if item.is_fine else "MISSING", item.name, item.found, item.remedy] for item in findings]
        print_table(["", "WHAT", "FOUND", "REMEDY"], rows)
    sys.exit(0 if all(item.is_fine for item in findings) else 1)
