"""What a user gave, for messages."""

from __future__ import annotations


def shorten(text: str, length: int = 120) -> str:
    """Return a text that a user gave so that it fits into a message.

    >>> shorten("x" * 300, 10)
    'xxxxxxx … (300 characters)'
    """
    return text if len(text) <= length else f"{text[: length - 3]} … ({len(text)} characters)"
