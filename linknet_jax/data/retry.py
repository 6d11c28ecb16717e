"""Reading from storage that fails now and then."""

from __future__ import annotations

import sys

import tenacity
from etils import epath

TRIES = 5
# What another try does not change. Buckets raise errors of their own for the rest.
LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError)


def read_bytes(path: epath.Path) -> bytes:
    """The file's contents, tried TRIES times with growing pauses; each failure is reported.

    Raises the last error, at once where it lasts.
    """
    return _patiently(path.read_bytes)


def _report(state: tenacity.RetryCallState) -> None:
    place = getattr(state.args[0], "__self__", "")
    print(
        f"warning: {place}: {state.outcome.exception()!r}; try {state.attempt_number + 1} of "
        f"{TRIES} in {state.next_action.sleep:.1f} s",
        file=sys.stderr,
    )


@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: not isinstance(error, LASTING)),
    stop=tenacity.stop_after_attempt(TRIES),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
    before_sleep=_report,
    reraise=True,
)
def _patiently(read):
    return read()
