"""The tracer: the sources of its programs, the form of what they write, and the building of its image."""

from bedrock import __version__

OWN_IMAGE = f"bedrock/tracer:{__version__}"
# On images and containers of our own tracer: which version it is of.
LABEL_TRACER = "bedrock.tracer"
