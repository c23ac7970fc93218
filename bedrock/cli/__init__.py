"""The command line. Each command is a thin shell around :mod:`bedrock.client` or around one of the services."""

from __future__ import annotations

import click

from bedrock import __version__
from bedrock.cli.host import doctor, tracer
from bedrock.cli.services import up
from bedrock.cli.sessions import logs, nodes, ps, rm, run, show, stop
from bedrock.cli.traces import diff, report, trace


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bedrock")
def main() -> None:
    """Run container images under a tracer that sees every file they touch.

    The client commands talk to the API at BEDROCK_URL (default http://127.0.0.1:8080); `bedrock up` starts everything
    on this machine.
    """


for command in (up, run, ps, show, stop, logs, trace, report, diff, rm, nodes, tracer, doctor):
    main.add_command(command)
