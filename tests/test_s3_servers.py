"""What the S3 servers of the tests are like, and that their requests are counted."""

from __future__ import annotations

import pytest

from tests.s3 import S3, counted_requests


def test_a_request_is_counted_with_its_method_and_path(s3: S3, bucket: str) -> None:
    name = bucket.removeprefix("s3://")
    with counted_requests() as requests:
        s3.files.pipe_file(f"{bucket}/a b", b"1")
        s3.files.cat_file(f"{bucket}/a b", max_concurrency=1)
    assert requests == [f"PUT /{name}/a b", f"GET /{name}/a b"]
    with counted_requests() as requests:
        pass
    assert requests == []


def test_only_one_of_the_servers_honours_create_once(s3: S3, bucket: str) -> None:
    s3.files.pipe_file(f"{bucket}/a", b"1", mode="create")
    if s3.honours_create:
        with pytest.raises(FileExistsError):
            s3.files.pipe_file(f"{bucket}/a", b"2", mode="create")
    else:
        s3.files.pipe_file(f"{bucket}/a", b"2", mode="create")
    assert s3.files.cat_file(f"{bucket}/a") == (b"1" if s3.honours_create else b"2")
