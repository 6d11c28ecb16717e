"""How a command of this package ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def exit_status(
    run: Callable[[], int | None],
    wrong_input: tuple[type[Exception], ...] = (ValueError, OSError),
) -> int:
    """Runs it; `wrong_input` is a message and status 2, not a traceback."""
    try:
        status = run() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; nothing may be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except wrong_input as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status
