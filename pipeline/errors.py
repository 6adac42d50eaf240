"""Errors that a user can fix, and the description of an error in one line."""


class UserError(RuntimeError):
    """An error that a user can fix: commands print its message without a traceback and exit with status 2."""


class LockedError(UserError):
    """Another process is writing the file."""


class WorkersLostError(UserError):
    """Workers die faster than they answer, or no node has the resources for one."""


def describe(error: BaseException) -> str:
    """Return the error's type and the first line of its message."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:500]}"
