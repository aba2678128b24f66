"""The errors a person can mend. Each message is one line that names the key, file or shape, and the mend."""


class CanonError(Exception):
    """A run cannot go on; the command line exits with status 1."""


class UsageError(CanonError, ValueError):
    """The caller asked for something that does not exist or does not fit; exits with status 2."""
