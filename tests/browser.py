"""A headless Chromium that looks at the Prefect UI as a person would.

It is driven over its DevTools protocol. `--dump-dom` and `--screenshot` cannot open tabs, and do
not wait for a page that polls an API.

The graph of a run is drawn on a canvas: there is no text in it to read. What is drawn is counted in
the picture instead, see `Picture`.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1400,1000",
    "--remote-debugging-port=0",
)
START_S = 60.0
ANSWER_S = 60.0
LOOK_S = 30.0


class Box(NamedTuple):
    """A place in a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int


class Picture:
    """Pixels, height x width x (red, green, blue)."""

    def __init__(self, pixels: np.ndarray[Any, Any]) -> None:
        self.pixels = pixels

    def near(self, colour: tuple[int, int, int], within: int = 24) -> np.ndarray[Any, Any]:
        """Where the picture has about this colour."""
        away = np.abs(self.pixels.astype(int) - np.array(colour)).max(axis=2)
        return np.asarray(away <= within)

    def blobs(self, colour: tuple[int, int, int], within: int = 24) -> list[Box]:
        """The box around each connected area of about this colour, from left to right."""
        open_ = {(int(x), int(y)) for y, x in np.argwhere(self.near(colour, within))}
        boxes = []
        while open_:
            found, edge = set(), [min(open_)]
            open_.discard(edge[0])
            while edge:
                x, y = edge.pop()
                found.add((x, y))
                around = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & open_
                open_ -= around
                edge.extend(around)
            xs, ys = [x for x, _ in found], [y for _, y in found]
            boxes.append(Box(min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1))
        return boxes


@dataclass(frozen=True)
class RunPage:
    """What the page of a flow run shows.

    Attributes:
        head: the text above the tabs.
        tabs: the text of the page with one of its tabs open: 'Logs', 'Task Runs', 'Artifacts'.
        png: the whole page as it looks at first.
        graph: the canvas that the graph is drawn on.
    """

    head: str
    tabs: Mapping[str, str]
    png: bytes
    graph: Picture

    @property
    def text(self) -> str:
        return "\n".join(self.tabs.values())

    def nodes(self, colour: tuple[int, int, int]) -> list[Box]:
        """The task runs drawn in this colour. The strip at the bottom is the flow's own, and what
        is less than half as high lies in the holes of the letters of a name."""
        bottom = self.graph.pixels.shape[0] - 12
        boxes = [box for box in self.graph.blobs(colour) if box.height > 4 and box.y < bottom]
        tallest = max((box.height for box in boxes), default=0)
        return [box for box in boxes if 2 * box.height >= tallest]

    def arrows(self, colour: tuple[int, int, int]) -> int:
        """How many task runs of this colour an edge is drawn to: a line ends at their left side."""
        return sum(map(self._has_arrow, self.nodes(colour)))

    def _has_arrow(self, box: Box) -> bool:
        middle = box.y + box.height // 2
        before = self.graph.pixels[middle - 2 : middle + 3, max(0, box.x - 6) : box.x - 1]
        return bool(before.size and before.min(axis=2).max() > 90)


COMPLETED = (33, 157, 75)
FAILED = (222, 5, 41)
CRASHED = (234, 88, 12)


class Browser:
    """A running browser; every page is a new tab."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def open(self, url: str) -> Iterator[Page]:
        import httpx
        from websockets.sync.client import connect

        tab = httpx.put(f"http://127.0.0.1:{self._port}/json/new?about:blank", timeout=START_S)
        address = tab.json()["webSocketDebuggerUrl"]
        with connect(address, max_size=None, proxy=None) as socket:
            page = Page(socket)
            page.go(url)
            yield page
            page.call("Page.close")

    def run_page(self, url: str, shows: Mapping[str, str]) -> RunPage:
        """Open the page of a flow run and some of its tabs.

        Args:
            url: of the page.
            shows: tab → a text that stands there once the page has loaded it; the page itself
                fills its tabs bit by bit, logs seconds after the run.
        """
        with self.open(url) as page:
            page.wait_for("Task Runs")
            page.wait_for_selector("canvas")
            box = page.run(
                "(() => { const b = document.querySelector('canvas').getBoundingClientRect();"
                " return {x: b.x, y: b.y, width: b.width, height: b.height, scale: 1} })()"
            )
            settle(lambda: page.png(box))
            png, canvas = page.png(), page.png(box)
            tabs = {name: page.open_tab(name, text) for name, text in shows.items()}
            head = page.text.partition("\nLogs\n")[0]
            page.go("about:blank")
            return RunPage(head, tabs, png, page.decode(canvas))


def settle(look: Callable[[], object], still_s: float = 0.7) -> None:
    """Wait until what `look` sees has not changed for a while: a page has no word for 'ready'."""
    deadline = time.monotonic() + LOOK_S
    seen, since = look(), time.monotonic()
    while time.monotonic() < min(deadline, since + still_s):
        time.sleep(0.2)
        if (now := look()) != seen:
            seen, since = now, time.monotonic()


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=ANSWER_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """What can be read on the page now."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, text: str) -> None:
        """Until the text stands on the page."""
        self._wait(lambda: text in self.text, f"{text!r} is not on the page")

    def wait_for_selector(self, selector: str) -> None:
        """Until an element is there."""
        script = f"document.querySelector({json.dumps(selector)}) !== null"
        self._wait(lambda: self.run(script), f"no {selector} on the page")

    def open_tab(self, name: str, shows: str) -> str:
        """Click the tab with this name; the text of the page once it shows what it should."""
        self.run(
            "[...document.querySelectorAll('[role=tablist] li')]"
            f".find(tab => tab.innerText.trim() === {json.dumps(name)}).click()"
        )
        self.wait_for(shows)
        settle(lambda: self.text)
        return self.text

    def png(self, clip: Mapping[str, float] | None = None) -> bytes:
        """A picture of the page, or of a part of it."""
        options = {"clip": clip} if clip else {}
        shot = self.call("Page.captureScreenshot", format="png", **options)
        return base64.b64decode(shot["data"])

    def decode(self, png: bytes) -> Picture:
        """The pixels of a picture; the browser is the one decoder at hand."""
        data = base64.b64encode(png).decode()
        width, height, pixels = self.run(
            f"""(async () => {{
                const blob = await (await fetch("data:image/png;base64,{data}")).blob();
                const image = await createImageBitmap(blob);
                const canvas = new OffscreenCanvas(image.width, image.height);
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                const bytes = context.getImageData(0, 0, image.width, image.height).data;
                let text = "";
                for (let i = 0; i < bytes.length; i += 8192)
                    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
                return [image.width, image.height, btoa(text)];
            }})()"""
        )
        flat = np.frombuffer(base64.b64decode(pixels), dtype=np.uint8)
        return Picture(flat.reshape(height, width, 4)[:, :, :3])

    def _wait(self, is_there: Callable[[], object], complaint: str) -> None:
        deadline = time.monotonic() + LOOK_S
        while not is_there():
            assert time.monotonic() < deadline, f"{complaint}:\n{self.text}"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, or a skip where there is none (a failure if `MLPIPE_TESTS_REQUIRE_BROWSER=1`)."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        complaint = f"No browser: none of {', '.join(NAMES)} is on the PATH."
        if os.environ.get("MLPIPE_TESTS_REQUIRE_BROWSER") == "1":
            pytest.fail(complaint)
        pytest.skip(complaint)
    data = tmp_path_factory.mktemp("browser")
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={data}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Browser(_port(data / "DevToolsActivePort", process))
    finally:
        process.terminate()
        process.wait(START_S)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """The browser writes it down once it listens."""
    deadline = time.monotonic() + START_S
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None, f"the browser ended with status {process.returncode}"
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    return int(file.read_text().split()[0])
