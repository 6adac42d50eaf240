"""Proves what errors of stores say, and that gcsfs creates exclusively, as a chain of segments needs."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from faulty_place import memory_place

from tasks.files import local_store as disk
from tasks.files.object_store import StoreFolder, check_url, is_url
from tasks.files.store_errors import RemoteError, UnreachableError, explained


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://a/b", True),
        ("gs://a", True),
        ("runs/x", False),
        ("/a/b", False),
        ("hf:owner/repo", False),
        ("C:/x", False),
    ],
)
def test_what_is_a_url(text: str, url: bool) -> None:
    assert is_url(text) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:hidden@bucket/x", "s3://bucket/x: was given with a user or a password.*AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x?X-Amz-Signature=hidden", "s3://bucket/x: was given with a query"),
        ("s3:///x", "must name a bucket, as in s3://BUCKET/FOLDER"),
    ],
)
def test_a_url_with_a_secret_or_without_a_bucket_is_refused_without_showing_the_secret(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        check_url(url)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("place", ["s3://bucket/runs/a[1]", "memory://bucket/a*", "/cache/a[1]"])
def test_what_a_store_would_take_for_a_pattern_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="must not contain .*: give another place"):
        StoreFolder.open(place)


def test_a_refused_deletion_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    place = memory_place()
    for name in "abc":
        place.write(name, b"")

    def refused(path: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(place.fs, "rm_file", refused)
    with pytest.raises(RemoteError, match="permission denied to delete"):
        place.delete("abc")
    monkeypatch.undo()
    place.delete("abcd")
    assert not place.entries()


def test_a_shared_folder_never_holds_half_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = StoreFolder.open(str(tmp_path / "shared"))
    (tmp_path / "file").write_bytes(b"new")
    assert place.create("a/b", b"old") and not place.create("a/b", b"new")

    def killed(source: Path, target: Path) -> None:
        target.write_bytes(b"n")
        raise KeyboardInterrupt

    monkeypatch.setattr(disk.shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        place.upload(tmp_path / "file", "a/b")
    assert place.read("a/b") == b"old" and list(place.entries()) == ["a/b"]


def test_an_object_is_created_once_and_in_one_piece() -> None:
    place = memory_place()
    assert place.create("a/b", b"1") and not place.create("a/b", b"2")
    assert place.read("a/b") == b"1" and place.read("a/c") is None
    assert place.read_many(["a/b", "a/c"]) == {"a/b": b"1", "a/c": None}
    place.write("c", b"3")
    assert set(place.entries()) == {"a/b", "c"} and set(place.entries("a")) == {"a/b"}
    place.delete(["a/b", "never there"])
    assert place.info("a/b") is None and place.info("c") is not None


def test_the_error_of_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    monkeypatch.setenv("AWS_PROFILE", "makes a filesystem of its own")
    with pytest.raises(ValueError, match=r"s3://: needs s3fs: pip install (-e '\.\[s3\]'|s3fs)$"):
        StoreFolder.open("s3://bucket/x")


class NoCredentialsError(Exception):
    """As botocore names it."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            PermissionError("Access Denied"),
            RemoteError,
            "s3://b/x: permission denied to write .*docs/guides/storage.md",
        ),
        (OSError("Forbidden: b/x"), RemoteError, "permission denied to write"),
        (NoCredentialsError(), RemoteError, "no usable credentials .*AWS_PROFILE"),
        (FileNotFoundError("b/x"), RemoteError, "the bucket does not exist"),
        (TimeoutError(), UnreachableError, "the store gives no answer .*AWS_ENDPOINT_URL"),
        (KeyError("odd"), RemoteError, "cannot write: KeyError: 'odd'"),
    ],
)
def test_the_error_of_each_refusal_names_a_remedy(error: Exception, kind: type[RemoteError], message: str) -> None:
    found = explained(error, "s3://b/x", "write")
    assert type(found) is kind
    with pytest.raises(RemoteError, match=message):
        raise found


class Bucket(BaseHTTPRequestHandler):
    """The part of Google's JSON interface that gcsfs uses for small objects, with its condition on a creation."""

    objects: dict[str, bytes]
    asked: list[dict[str, list[str]]]

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        meta, data = (part.split(b"\n\n", 1)[1] for part in body.split(b"--==0==")[1:3])
        name = json.loads(meta)["name"]
        if query.get("ifGenerationMatch") == ["0"] and name in self.objects:
            self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        self.objects[name] = data.removesuffix(b"\n")
        self._answer(200, {"name": name, "bucket": "bucket", "size": str(len(data)), "generation": "1"})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        name = path.rpartition("/o/")[2].replace("%2F", "/")
        if name not in self.objects:
            self._answer(404, {"error": {"code": 404, "message": "No such object"}})
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.objects[name])))
        self.end_headers()
        self.wfile.write(self.objects[name])

    def _answer(self, status: int, content: dict[str, object]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    handler = type("Handler", (Bucket,), {"objects": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


def test_gcsfs_creates_exclusively_and_reports_existing_objects(google: type[Bucket]) -> None:
    pytest.importorskip("gcsfs")
    place = StoreFolder.open("gs://bucket/run")
    assert place.create("journal/0", b"first\n") and not place.create("journal/0", b"second\n")
    assert [query["ifGenerationMatch"] for query in google.asked] == [["0"], ["0"]]
    place.write("lease.json", b"{}")
    assert "ifGenerationMatch" not in google.asked[-1]
    assert google.objects == {"run/journal/0": b"first\n", "run/lease.json": b"{}"}
