"""An error as text: in one line, as its whole message, or with its traceback.

Knows exceptions. Knows nothing of where the text goes.
"""

from __future__ import annotations

import textwrap
import traceback
from typing import Final

_MESSAGE_CHARACTERS: Final = 4_000
_TRACEBACK_CHARACTERS: Final = 20_000
_SHOWN_ERRORS: Final = 10  # of a group


def in_one_line(error: BaseException | None) -> str | None:
    """Return an error in one line: its type, and the first line of its message."""
    if error is None:
        return None
    name = type(error).__name__
    lines = traceback.format_exception_only(error)  # says so where an error has no text
    message = next((text for text in lines if name in text), lines[-1]).partition(": ")[2]
    return f"{name}: {message}".partition("\n")[0].removesuffix(": ")


def whole(error: BaseException | None) -> str | None:
    """Return type and message of an error, all its lines; of a group also those of its errors."""
    return None if error is None else _whole(error)[:_MESSAGE_CHARACTERS]


def _whole(error: BaseException) -> str:
    name = type(error).__name__
    said = "".join(traceback.format_exception_only(error)).strip()
    lines = [said.replace(f"{type(error).__module__}.{name}", name, 1)]
    if isinstance(error, BaseExceptionGroup):
        shown = error.exceptions[:_SHOWN_ERRORS]
        lines += [textwrap.indent(_whole(each), "  ") for each in shown]
        if len(error.exceptions) > len(shown):
            lines.append(f"  … and {len(error.exceptions) - len(shown):,} more")
    return "\n".join(lines)


def with_traceback(error: BaseException | None) -> str | None:
    """Return an error with its traceback, the end of it where it is long."""
    if error is None:
        return None
    return "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:].strip()
