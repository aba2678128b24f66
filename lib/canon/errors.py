"""Errors a user can fix, and how a command reports them: one line that names the key, file or shape, and the fix."""

import os
import sys
import traceback
from collections.abc import Callable


class CanonError(Exception):
    """A run cannot continue; the command line exits with status 1."""


class UsageError(CanonError, ValueError):
    """The caller asked for something that does not exist or does not fit; exits with status 2."""


class MissingExtra(CanonError, ModuleNotFoundError):
    """An optional library is not installed; the message has the command that installs it (`canon.extras`)."""


def describe_error(error: BaseException) -> str:
    """Returns `KeyError: 'x'`: an error that is not Canon's, for use within a message."""
    return f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type if it has none, for use within another message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command of the command line and returns its exit status.

    0: done, if the command returns None; 1: failed; 2: wrong usage; 130: interrupted; 141: the reader of the output has
    closed it. Errors are one line on stderr, with a traceback only if Canon did not foresee them.
    """
    status = 1
    try:
        status = command() or 0
        sys.stdout.flush()  # a closed pipe may show only now
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except CanonError as error:
        print(f'error: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `| head` has read enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except MemoryError as error:
        print(f'error: there is not enough memory: {str(error) or "for one more array"}', file=sys.stderr)
    except OSError as error:  # a full disk, a file that must not be written
        print(f'error: {error}', file=sys.stderr)
    except Exception as error:
        if 'RESOURCE_EXHAUSTED' in str(error):  # XLA's status for the memory of a device
            print(f'error: there is not enough memory: {first_line(error)}', file=sys.stderr)
        else:
            traceback.print_exc()
    sys.stderr.flush()
    return status
