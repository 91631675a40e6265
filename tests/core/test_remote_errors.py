"""What a remote store says when it cannot be used: where, what was done, what to do."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.places.remote_errors import shown
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import StoreUnavailable
from tests.core.stores import LARGE
from tests.s3 import S3
from tests.server import free_port

ONCE = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "read_timeout": 1}}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def refused(url: str, tmp_path: Path, **options: Any) -> list[StoreUnavailable]:
    """What reading and writing there says."""
    said = []
    for act in (lambda store: store.records.read("ab" * 32), lambda store: store.put(LARGE)):
        store = Store(url, cache_folder=str(tmp_path / "cache"), **options)
        with pytest.raises(StoreUnavailable) as caught:
            act(store)
        said.append(caught.value)
        text = str(caught.value)
        assert url in text
        assert "test-secret" not in text
        assert "hunter2" not in text
        assert len(str(caught.value.facts["error"]).splitlines()) == 1
        assert caught.value.facts["while"]
    return said


def test_a_bucket_that_is_not_there_is_said_and_is_no_empty_store(s3: S3, tmp_path: Path) -> None:
    for error in refused("s3://no-such-bucket/ml", tmp_path, **s3.options):
        assert "NoSuchBucket" in str(error)
        assert "Create the bucket" in error.advice


def test_wrong_credentials_are_said_and_not_shown(rclone: S3, tmp_path: Path) -> None:
    bucket = rclone.make_bucket()
    wrong = {"key": "other-key"}, {"secret": "hunter2"}
    codes = "InvalidAccessKeyId", "SignatureDoesNotMatch"
    for changed, code in zip(wrong, codes, strict=True):
        for error in refused(bucket, tmp_path, **{**rclone.options, **changed}):
            assert code in str(error)
            assert "AWS_ACCESS_KEY_ID" in error.advice


def test_having_no_credentials_is_said(s3: S3, bucket: str, tmp_path: Path) -> None:
    for error in refused(bucket, tmp_path, endpoint_url=s3.endpoint):
        assert "NoCredentialsError" in str(error)
        assert "AWS_ACCESS_KEY_ID" in error.advice


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that has one answer to everything; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def an_answer(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (403, an_answer("AccessDenied", "Access Denied"), "permission"),
        (403, b"", "permission"),
        (400, an_answer("AuthorizationHeaderMalformed", "expecting 'eu-west-1'"), "region"),
        (404, b"<html>nothing here</html>", "endpoint_url"),
    ],
    ids=["no permission", "no permission, no word", "other region", "no S3"],
)
def test_what_a_server_refuses_is_said_in_its_words_with_what_to_do(
    tmp_path: Path, status: int, body: bytes, word: str
) -> None:
    options = {"key": "test-key", "secret": "test-secret", **ONCE}
    with answering(status, body) as endpoint:
        said = refused("s3://some-bucket", tmp_path, endpoint_url=endpoint, **options)
    for error in said:
        assert word in error.advice, str(error)


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    options = {"key": "test-key", "secret": "test-secret", **ONCE}
    nowhere = f"http://127.0.0.1:{free_port()}"
    for error in refused("s3://some-bucket", tmp_path, endpoint_url=nowhere, **options):
        assert nowhere in str(error)
        assert "endpoint_url" in error.advice


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    options = {"key": "test-key", "secret": "test-secret", **ONCE}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for error in refused("s3://some-bucket", tmp_path, endpoint_url=endpoint, **options):
            assert "endpoint_url" in error.advice


def test_what_would_work_by_half_is_refused() -> None:
    url = "simplecache::s3://bucket/store"
    acts: list[Callable[[RemoteBackend], object]] = [
        lambda backend: backend.read("a"),
        lambda backend: backend.replace("a", b""),
        lambda backend: list(backend.list("a")),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable, match="cannot be a store"):
            act(RemoteBackend(url))


def test_a_password_in_a_url_is_not_shown() -> None:
    assert shown("sftp://me:hunter2@host:22/data") == "sftp://me:***@host:22/data"
    assert shown("s3://bucket/a:b@c") == "s3://bucket/a:b@c"
    url = "sftp://me:hunter2@host/data"
    assert "hunter2" not in RemoteBackend(url).url + Store(url).url + repr(Store(url))
    assert pickle.loads(pickle.dumps(Store(url)))._url == url
