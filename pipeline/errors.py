"""Errors that a user can fix, and how an error is described in one line."""


class LockedError(RuntimeError):
    """Another process is writing the file."""


class WorkersLostError(RuntimeError):
    """Workers die faster than they answer, or there is no place for one."""


def describe(error: BaseException) -> str:
    """The error's type and first line, for people."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:500]}"
