"""One process for one directory, for as long as the process lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedrock.errors import BedrockError


@contextmanager
def sole_owner(lock_file: Path, refusal: str) -> Iterator[None]:
    """Hold an exclusive lock on ``lock_file``; raise ``refusal`` when another process holds it.

    The kernel drops the lock with the process, however that ends, so there is never a stale one.
    """
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BedrockError(f"{lock_file} can't be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BedrockError(refusal) from None
        yield
    finally:
        os.close(descriptor)
