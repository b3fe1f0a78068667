"""Parts of messages: durations, counts, one-line texts, and addresses without passwords."""

import math
import re


def duration(seconds: float) -> str:
    """Formats a duration as ``3 h 05 min``, ``4 min 12 s`` or ``8 s``, and NaN as ``-``."""
    if math.isnan(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(n: float, what: str) -> str:
    """Formats a number with its noun: ``1 epoch``, ``2 epochs``."""
    return f"{n:g} {what}{'s' * (n != 1)}"


def one_line(text: object) -> str:
    """Puts a text on one line and escapes its control characters."""
    line = " ".join(str(text).split())
    # control characters from a file must not reach the terminal
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def hide(text: str) -> str:
    """Hides the passwords of all addresses in a text."""
    # an http address without a password may contain a port and a later @: http://host:80/a@b
    text = re.sub(r"(https?://[^:/@\s]*:)[^/?#\s]+@", r"\1***@", text)
    text = re.sub(r"(?<!http)(?<!https)(://[^:/@\s]*:)\S+@", r"\1***@", text)
    return re.sub(r"((?:password|pwd)=)[^&;\s]+", r"\1***", text, flags=re.IGNORECASE)


def mask(text: object) -> str:
    """Puts a text on one line and hides the passwords of all its addresses."""
    return hide(one_line(text))
