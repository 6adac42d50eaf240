"""Errors of s3fs, botocore, gcsfs and aiohttp, which need not be installed, as messages that name a remedy."""

import errno
import re
from urllib.parse import urlsplit

#: Protocols that need a package, with the extra that installs it.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_ENDPOINT_URL for a store of your own)",
    "gcs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_NEEDS = {"read": "read", "list": "list", "write": "write (create and overwrite)", "delete": "delete"}
#: Names of exceptions of packages that need not be installed.
_NO_CREDENTIALS = re.compile(r"(Credential|TokenRetrieval|SSOToken|ProfileNotFound|RefreshError)")
_UNREACHABLE = re.compile(
    r"(EndpointConnection|Timeout|ConnectionClosed|HTTPClientError|ClientConnector|ClientOSError)"
)
_BUSY = {errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.EAGAIN}
_UNAUTHORIZED, _FORBIDDEN = 401, 403
#: Another conditional write of the same object is under way; too many requests.
_LATER = (409, 429)
_SERVER_ERROR = 500


class RemoteError(ValueError):
    """An object store refuses; the user must do something before it succeeds."""


class UnreachableError(RemoteError):
    """An object store gives no answer or is busy; a later attempt may succeed."""


def credentials(url: str) -> str:
    """Return how a user supplies credentials for a URL's store."""
    return _CREDENTIALS.get(EXTRAS.get(urlsplit(url).scheme, ""), "credentials come from the environment")


def no_bucket(error: BaseException) -> bool:
    """Return whether an object is missing because its bucket is."""
    text = f"{error} {error.__cause__!r}"
    return "bucket does not exist" in text or "NoSuchBucket" in text


def explained(error: Exception, url: str, operation: str) -> RemoteError:
    """Return an error that explains a failed operation at a URL, with a remedy.

    Args:
        error: what the store's package raised.
        url: the object or folder.
        operation: read, list, write or delete.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    status = http_status(error)
    if isinstance(error, FileNotFoundError) and (no_bucket(error) or operation in ("write", "list")):
        return RemoteError(f"{url}: the bucket does not exist: create it, or correct its name")
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"{url}: the object does not exist")
    if isinstance(error, PermissionError) or status == _FORBIDDEN or text.startswith("Forbidden"):
        need = f"the credentials need permission to {_NEEDS[operation]} here (docs/guides/storage.md has a policy)"
        return RemoteError(f"{url}: permission denied to {operation} ({text}): {need}")
    if _NO_CREDENTIALS.search(type(error).__name__) or status == _UNAUTHORIZED:
        return RemoteError(f"{url}: no usable credentials ({text}): {credentials(url)}")
    busy = status in _LATER or (status or 0) >= _SERVER_ERROR or getattr(error, "errno", None) in _BUSY
    if busy or isinstance(error, ConnectionError | TimeoutError) or _UNREACHABLE.search(type(error).__name__):
        hint = "is the address right (AWS_ENDPOINT_URL), and is there a network?"
        return UnreachableError(f"{url}: cannot {operation}: the store gives no answer ({text}): {hint}")
    return RemoteError(f"{url}: cannot {operation}: {type(error).__name__}: {text}")


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception, or its cause, carries."""
    for carrier in (error, error.__cause__):
        response = getattr(carrier, "response", None)
        if isinstance(response, dict) and (code := response.get("ResponseMetadata", {}).get("HTTPStatusCode")):
            return int(code)
        if isinstance(code := getattr(carrier, "code", None), int):
            return code
    return None
