"""The services: all of them (`bedrock up`), or one each (`python -m bedrock.api` and so on)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from bedrock.cli.output import fail, say
from bedrock.concurrency.service import ServiceContext, run_service
from bedrock.errors import BedrockError
from bedrock.logconfig import configure_logging
from bedrock.settings import Settings, all_settings, load_settings

_Main = Callable[[ServiceContext, Settings], Awaitable[None]]


def settings_options(*sections: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for each setting of ``sections``, and call it with the settings in force."""
    known = [info for info in all_settings() if info.section in {"", *sections}]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(config: Path | None, **flags: str | None) -> None:
            given = {
                info.flag: text
                for info in known
                if (text := flags[info.flag.lstrip("-").replace("-", "_")]) is not None
            }
            try:
                settings = load_settings(flags=given, config=config)
                configure_logging(settings.common.log_level, settings.common.log_format)
            except BedrockError as error:
                fail(error, 1)
            function(settings)

        for info in reversed(known):
            text = f"{info.meaning}  [{info.env}; default: {info.shown_default}]"
            command = click.option(info.flag, metavar="VALUE", help=text)(command)
        return click.option(
            "--config", type=click.Path(path_type=Path), help="Settings file (TOML).  [BEDROCK_CONFIG]"
        )(command)

    return decorate


def _serve(name: str, main: _Main, settings: Settings) -> None:
    async def body(context: ServiceContext) -> None:
        await main(context, settings)

    raise SystemExit(run_service(body, name=name))


async def _api(context: ServiceContext, settings: Settings) -> None:
    from bedrock.api.service import open_api

    async with open_api(settings):
        context.ready()
        await context.stopping.wait()


async def _dockerd(context: ServiceContext, settings: Settings) -> None:
    from bedrock.dockerd.service import open_dockerd

    async with open_dockerd(settings):
        context.ready()
        await context.stopping.wait()


async def _filemd(context: ServiceContext, settings: Settings) -> None:
    from bedrock.filemd.watch import open_filemd

    async with open_filemd(settings):
        context.ready()
        await context.stopping.wait()


async def _up(context: ServiceContext, settings: Settings) -> None:
    from bedrock.embedded import open_bedrock

    async with open_bedrock(settings) as url:
        context.ready()
        say(f"bedrock is up: {url}", err=True)
        await context.stopping.wait()


@click.command()
@settings_options("api", "dockerd", "filemd")
def up(settings: Settings) -> None:
    """Start the API, a DockerD and a FileMD on this machine, in one process.

    Ctrl-C ends it: sessions that run are stopped, and their traces are brought home first. A second Ctrl-C ends it
    within a few seconds: sessions are killed, and what is not home by then is brought home by the next start.
    """
    _serve("bedrock", _up, settings)


@click.command(name="python -m bedrock.api")
@settings_options("api")
def api(settings: Settings) -> None:
    """Run the API: the REST interface, and the socket that DockerDs poll."""
    _serve("api", _api, settings)


@click.command(name="python -m bedrock.dockerd")
@settings_options("dockerd")
def dockerd(settings: Settings) -> None:
    """Run a DockerD: the containers and volumes of one Docker host.

    When it ends its sessions run on; the next DockerD of the same name and data_dir takes them up.
    """
    _serve("dockerd", _dockerd, settings)


@click.command(name="python -m bedrock.filemd")
@settings_options("filemd")
def filemd(settings: Settings) -> None:
    """Run a FileMD: it brings finished volumes to the API."""
    _serve("filemd", _filemd, settings)
