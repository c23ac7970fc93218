"""``python -m bedrock.filemd``."""

from bedrock.cli.services import filemd

filemd(prog_name="python -m bedrock.filemd")
