"""Objects to and from a file system behind fsspec, in as few requests and as fast as it can.

Knows fsspec and s3fs; nothing of stores. Errors are those of the file system: `FileNotFoundError`
also where a whole bucket is missing, which `remote_errors.is_absent` tells apart.

Worth arguing: s3fs asks for the size before each read, and looks for a folder where there is no
object; it holds ten parts of 50 MB in memory at once and waits for the slowest of ten before it
goes on. Here S3 is asked once for each object, and large ones go in a window of small parts, so
that storing or loading takes 64 MB besides the value.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

Bytes: TypeAlias = bytes | bytearray | memoryview

PART = 8 << 20
AT_ONCE = 8
MOST_PARTS = 10_000  # in one object of S3
READS = 3  # of a part whose connection breaks

T = TypeVar("T")


def is_s3(files: Any) -> bool:
    """Tell whether this is s3fs."""
    return "s3" in protocols(files)


def protocols(files: Any) -> set[str]:
    """The names of a file system."""
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def read(files: Any, path: str) -> bytes:
    """The bytes of an object; on S3 one request, whether it is there or not."""
    return bytes(files.cat_file(path, **_at_once(files)))


_WILD = re.compile(r"[*?\[]")


def read_many(files: Any, paths: Sequence[str]) -> dict[str, bytes | BaseException]:
    """The bytes of objects, or why they cannot be read; on S3 one request for each."""
    wild = [path for path in paths if _WILD.search(path)]  # fsspec would look for others by them
    found: dict[str, bytes | BaseException] = {path: _read_or_why(files, path) for path in wild}
    plain = [path for path in paths if path not in found]
    if plain:
        found |= files.cat(plain, on_error="return", **_at_once(files))
    return found


def _read_or_why(files: Any, path: str) -> bytes | BaseException:
    try:
        return read(files, path)
    except Exception as error:
        return error  # as of many: who asked for it tells what is wrong


def exists(files: Any, path: str) -> bool:
    """Tell whether there is something; on S3 one request, for an object of just this name."""
    if not is_s3(files):
        return bool(files.exists(path))
    bucket, key, _ = files.split_path(path)
    try:
        files.call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def upload(files: Any, path: str, size: int, pieces: Callable[[], Iterable[Bytes]]) -> None:
    """Write an object from pieces that are given in order. It is seen when it is whole.

    Args:
        files: the file system.
        path: where to.
        size: of all pieces together.
        pieces: gives them, once.
    """
    if not is_s3(files) or size <= PART:
        files.pipe_file(path, b"".join(pieces()))
        return
    part = max(PART, -(-size // MOST_PARTS))
    _run(files, lambda: _upload(files, path, _parts(pieces(), part)))


def upload_file(files: Any, path: str, source: str) -> None:
    """Write an object from a file of this machine. It is seen when it is whole."""
    size = os.path.getsize(source)
    if not is_s3(files):
        files.put_file(source, path)
        return

    def pieces() -> Iterator[bytes]:
        with open(source, "rb", buffering=0) as file:
            yield from iter(lambda: file.read(PART), b"")

    upload(files, path, size, pieces)


def download(files: Any, path: str, target: str) -> None:
    """Copy an object to a file of this machine, in parts that come at once.

    Should it be replaced meanwhile, S3 refuses the rest: no file is made of two objects.
    """
    if not is_s3(files):
        files.get_file(path, target)
        return
    with open(target, "wb", buffering=0) as file:
        _run(files, lambda: _download(files, path, file.fileno()))


def _at_once(files: Any) -> dict[str, int]:
    # In several parts s3fs has to ask for the size first.
    return {"max_concurrency": 1} if is_s3(files) else {}


def _run(files: Any, work: Callable[[], Awaitable[T]]) -> T:
    from fsspec.asyn import sync  # type: ignore[import-untyped]  # only for remote stores

    result: T = sync(files.loop, work)
    return result


async def _upload(files: Any, path: str, parts: Iterator[bytes]) -> None:
    bucket, key, _ = files.split_path(path)
    place = {"Bucket": bucket, "Key": key}
    begun = await files._call_s3("create_multipart_upload", **place)
    place["UploadId"] = begun["UploadId"]

    async def send(number: int, part: bytes) -> dict[str, Any]:
        sent = await files._call_s3("upload_part", PartNumber=number, Body=part, **place)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    try:
        sending = (send(number, part) for number, part in enumerate(parts, 1))
        sent = [one async for one in _window(sending)]
        sent.sort(key=lambda one: int(one["PartNumber"]))
        await files._call_s3("complete_multipart_upload", MultipartUpload={"Parts": sent}, **place)
    except BaseException:
        await files._call_s3("abort_multipart_upload", **place)
        raise
    files.invalidate_cache(path)


async def _download(files: Any, path: str, handle: int) -> None:
    data, size, tag = await _get(files, path, 0, None)
    os.ftruncate(handle, size)
    _write_at(handle, data, 0)

    async def fetch(start: int) -> None:
        rest, _, _ = await _get(files, path, start, tag)
        _write_at(handle, rest, start)

    async for _ in _window(fetch(start) for start in range(len(data), size, PART)):
        pass


async def _get(files: Any, path: str, start: int, tag: str | None) -> tuple[bytes, int, str | None]:
    """A part of an object, the size of the whole, and what identifies the version."""
    from s3fs.core import S3_RETRYABLE_ERRORS  # type: ignore[import-untyped]

    bucket, key, _ = files.split_path(path)
    asked = {"Range": f"bytes={start}-{start + PART - 1}", **({"IfMatch": tag} if tag else {})}
    for left in reversed(range(READS)):
        try:
            answer = await files._call_s3("get_object", Bucket=bucket, Key=key, **asked)
            async with answer["Body"] as body:
                data = await body.read()
            break
        except S3_RETRYABLE_ERRORS:
            if not left:
                raise
        except OSError as error:
            if start or not _is_empty(error):
                raise
            return b"", 0, None
    whole = answer.get("ContentRange", "").rpartition("/")[2]
    return data, int(whole or len(data)), answer.get("ETag")


def _is_empty(error: OSError) -> bool:
    """Tell whether a part was asked of an object that has not even one byte."""
    answer = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code") in ("InvalidRange", "416")


async def _window(work: Iterable[Awaitable[T]]) -> AsyncIterator[T]:
    """The results, in no order, of what is begun in order: never more than some at once."""
    running: set[asyncio.Future[T]] = set()
    try:
        for one in work:
            running.add(asyncio.ensure_future(one))
            if len(running) >= AT_ONCE:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    yield finished.result()
        for finished in asyncio.as_completed(running):
            yield await finished
    finally:
        for left in running:
            left.cancel()


def _parts(pieces: Iterable[Bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of one size; the last may be smaller."""
    gathered: list[Bytes] = []
    missing = size
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while len(view) >= missing:
            yield b"".join([*gathered, view[:missing]])
            view, gathered, missing = view[missing:], [], size
        if view:
            gathered.append(view)
            missing -= len(view)
    if gathered:
        yield b"".join(gathered)


def _write_at(handle: int, data: bytes, start: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(handle, memoryview(data)[written:], start + written)
