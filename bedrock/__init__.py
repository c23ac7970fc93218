"""Bedrock: run a container image in a fleet of Docker hosts under a tracer, and bring its trace and logs home."""

__version__ = "0.1.0"
