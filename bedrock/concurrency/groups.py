"""Exception groups, taken apart in one place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager


def members(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, however deeply it is nested, in their order; an error that is not a group itself."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from members(member)
    else:
        yield error


def first_member(error: BaseException) -> BaseException:
    """Return the first error in a group, for places that have room for one; an error that is not a group itself."""
    return next(members(error))


@contextmanager
def lone_error_unwrapped(*, levels: float = math.inf) -> Iterator[None]:
    """Have an error that is alone in the group round it come out as it went in.

    ``levels`` is how many groups, one round the other, may be taken off. A group of several errors stays a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while levels > 0 and isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            (error,) = error.exceptions
            levels -= 1
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            # Raising has made the group the error's context, which would show everything twice.
            error.__context__ = context
