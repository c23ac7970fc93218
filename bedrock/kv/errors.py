"""From the database's errors to the store's."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bedrock.kv.interface import StoreError, StoreUnavailable


def translate(error: SQLAlchemyError) -> StoreError:
    """Return the store's error for one of the database's, with the remedy where there is one."""
    cause = str(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else str(error)
    if "locked" in cause:
        return StoreUnavailable(f"another process keeps the store locked ({cause}); nothing was written")
    if "full" in cause:
        return StoreUnavailable(f"the store's disk is full ({cause}); make room, nothing was written")
    if "not a database" in cause or "malformed" in cause:
        return StoreError(
            f"the store's file is damaged or no database ({cause}); restore it, or name another store_url"
        )
    return StoreUnavailable(f"the store can't be used ({cause})")
