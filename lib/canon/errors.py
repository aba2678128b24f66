"""Errors a user can fix. Each message is one line that names the key, file or shape, and the fix."""


class CanonError(Exception):
    """A run cannot go on; the command line exits with status 1."""


class UsageError(CanonError, ValueError):
    """The caller asked for something that does not exist or does not fit; exits with status 2."""


def describe_error(error: BaseException) -> str:
    """Returns `KeyError: 'x'`: an error that is not Canon's, for use within a message."""
    return f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type where it has none, for use within another message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
