"""The root of Bedrock's own exceptions.

Every error a user can meet derives from :class:`BedrockError`. The text of one says what was wrong and what would be
right; facts that a program may want are attributes, never something to be parsed out of the text.
"""

from __future__ import annotations


class BedrockError(Exception):
    """Anything Bedrock itself refuses or fails to do. ``str()`` of it is a sentence fit for a user."""


class InvalidInput(BedrockError):
    """A value from outside (a field, setting, packet or flag) is wrong.

    ``field`` names it as the user knows it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
