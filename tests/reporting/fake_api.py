"""An API on loopback that answers as it is told: what a real server does only on a bad day."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    temporary_settings,
)

Answer = tuple[int, Any]  # status, JSON


class FakeApi:
    """Records what it is asked; `answer(method, path, body)` says what it replies."""

    def __init__(self, answer: Callable[[str, str, Any], Answer]) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answer = answer
        self.url = ""

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in list(self.asked) if asked == path]

    @contextmanager
    def running(self) -> Iterator[FakeApi]:
        """Serve, as the API of this process."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/api"
        settings = {PREFECT_API_URL: self.url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}
        try:
            with temporary_settings(settings):
                yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                path = self.path.removeprefix("/api")
                body = json.loads(sent) if sent else None
                status, answer = api.answer(self.command, path, body)
                api.asked.append((self.command, path, body))
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _reply

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler
