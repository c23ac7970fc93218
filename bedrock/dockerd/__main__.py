"""``python -m bedrock.dockerd``."""

from bedrock.cli.services import dockerd

dockerd(prog_name="python -m bedrock.dockerd")
