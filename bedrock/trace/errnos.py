"""The names of error numbers, as errno(3) and, for the kernel's own, strace(1) have them."""

from __future__ import annotations

import errno

# How the kernel notes for itself that a call was interrupted by a signal: see include/linux/errno.h. The process never
# gets these numbers: the call is made again, or gives EINTR, as its handler of the signal asks for.
_RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}


def error_name(number: int) -> str:
    """The name of a positive error number; the number itself where it has none."""
    return errno.errorcode.get(number) or _RESTARTS.get(number) or str(number)
