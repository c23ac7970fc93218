"""The tracer's compiled programs that an installation carries, and how it is known what they were made of.

They lie in ``bin/<machine>/`` beside this file, where a platform wheel, or the making of one, has put them. With them
is the digest of the sources that they were compiled from: in a source tree that has changed since they count as absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from bedrock import __version__
from bedrock.tracer import OWN_IMAGE
from bedrock.tracer.compile import sources

LABEL_PROGRAMS = "bedrock.tracer.digest"
LABEL_SOURCES = "bedrock.tracer.sources"
SOURCES_FILE = "sources"
PROGRAMS = ("bdtrace", "gate")


def carried_programs(machine: str) -> dict[str, bytes]:
    """The programs for a machine (``x86_64``, ``aarch64``) by name; empty where this installation has none."""
    directory = _directory(machine)
    try:
        if directory.joinpath(SOURCES_FILE).read_text() == source_digest(machine):
            return {name: directory.joinpath(name).read_bytes() for name in PROGRAMS}
    except FileNotFoundError:
        pass
    return {}


def _directory(machine: str) -> Traversable:
    return files("bedrock.tracer").joinpath("bin", machine)


def source_digest(machine: str) -> str:
    """A digest of all that determines the programs for a machine, the compiler and the libraries aside."""
    digest = hashlib.sha256(f"{__version__}\n{machine}\n".encode())
    for content in sources().values():
        digest.update(content)
    return digest.hexdigest()


def program_digest(programs: Mapping[str, bytes]) -> str:
    """A digest of the programs themselves."""
    digest = hashlib.sha256()
    for name, content in sorted(programs.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def image_labels(programs: Mapping[str, bytes], machine: str) -> dict[str, str]:
    """What an image says of the programs in it."""
    return {LABEL_PROGRAMS: program_digest(programs), LABEL_SOURCES: source_digest(machine)}


def is_current(image: str, labels: Mapping[str, str], machine: str) -> bool:
    """Whether a tracer image with these labels holds what this installation would put there.

    That is by the programs where they are carried, and by their sources where there is none, or where the name is not
    that of our own image: then it is somebody's own build.
    """
    carried = carried_programs(machine) if image == OWN_IMAGE else {}
    if carried:
        return labels.get(LABEL_PROGRAMS) == program_digest(carried)
    return labels.get(LABEL_SOURCES) == source_digest(machine)
