"""``python -m bedrock.api``."""

from bedrock.cli.services import api

api(prog_name="python -m bedrock.api")
