r"""Text that may come from file names, made safe to show: control characters are spelled out, as in ``\n``."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape control characters, so that a file name cannot forge lines: ``a\nERROR`` stays on its line.

    Newlines that cryoplug itself writes are kept: pass file names through `printable_name` first.
    """
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else _escaped(char) for char in text)


def printable_name(name: object) -> str:
    """Escape every control character of a file name, newlines included."""
    text = str(name)
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
