"""Many scheduled and triggered runs, as weeks bring: none lost, none doubled, no growing memory.

    python -m tests.deploy.soak --runs 200

A server of its own on loopback, with a PostgreSQL as one wants for weeks, and one process that
serves three pipelines: `tick` by an interval, `inbox` for each file that lands in a folder, `after`
for each other result of `inbox`. Files land until there were enough runs; the serving process is
killed and started again on the way. At the end each file must have started one run, each result the
next one, each moment of the schedule a `tick`, and all must be Completed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.postgres import running_postgres
from tests.server import Server, running_server

SCRIPT = """
import sys
from datetime import timedelta
from prefect import serve
from prefect.schedules import Interval
from prefect_mlpipe import CompletionTrigger, DataChangeTrigger, File, pipeline, step

@step
def read(csv: File) -> str:
    with open(csv) as file:
        return file.read()

@pipeline
def inbox(csv: File) -> str:
    return read(csv)

@step
def measure(text: str) -> int:
    return len(text)

@pipeline
def after(text: str) -> int:
    return measure(text)

@pipeline
def tick() -> int:
    return 1

if __name__ == "__main__":
    files = DataChangeTrigger("raw", every=1, settle=0.5, per="file", parameter="csv")
    results = CompletionTrigger(inbox, takes={"result": "text"})
    serve(
        inbox.to_deployment("soak", triggers=[files]),
        after.to_deployment("soak", triggers=[results]),
        tick.to_deployment("soak", interval=timedelta(seconds=int(sys.argv[1]))),
        limit=int(sys.argv[2]),
    )
"""

SHARE = 0.4  # of the runs, that files start; as many follow them
GROWTH = 1.3  # of the serving process, from its first samples to its last ones
PATIENCE_S = 300.0


@dataclass
class Soak:
    """What goes on, and what was seen of it."""

    folder: Path
    server: Server
    tick_s: int
    limit: int
    memory: list[float] = field(default_factory=list)
    files: int = 0
    restarts: int = 0

    def drop(self) -> None:
        """Let a file land, with a content that no other has."""
        self.files += 1
        (self.folder / "raw" / f"{self.files}.csv").write_text(f"file {self.files}")

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a deployment that were due."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {
                "flows": {"name": {"any_": [flow]}},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": 200,
                "offset": len(found),
            }
            page = self.ask("POST", "/flow_runs/filter", asked)
            found += page
            if len(page) < 200:
                return [one for one in found if one["state_name"] != "Scheduled"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API, and again as long as it is busy."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                url = f"{self.server.api_url}{path}"
                answer = httpx.request(method, url, json=body, timeout=60).raise_for_status()
                return answer.json() if answer.content else None
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def over(self, flow: str) -> int:
        """How many of them have ended."""
        return sum(run["end_time"] is not None for run in self.runs(flow))

    def schedule(self, what: str) -> None:
        """Pause or resume it."""
        found = self.ask("GET", "/deployments/name/tick/soak")
        self.ask("POST", f"/deployments/{found['id']}/{what}_deployment")

    @contextmanager
    def serving(self) -> Iterator[psutil.Process]:
        """The serving process; it dies at the end, without a word."""
        root = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "PREFECT_MLPIPE_STORE": str(self.folder / "store"),
            "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        }
        with (self.folder / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "soak_flows.py", str(self.tick_s), str(self.limit)],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def soak(runs: int, limit: int, every: int, folder: Path, server: Server) -> int:
    """Run, print what was found, and return the number of faults."""
    began = time.monotonic()
    wanted = max(2, round(runs * SHARE))
    ticks = max(1, runs - 2 * wanted)
    going = Soak(folder, server, tick_s=every, limit=limit)
    (folder / "raw").mkdir()
    (folder / "soak_flows.py").write_text(SCRIPT)
    for upto in (wanted // 2, wanted):
        with going.serving() as process:
            _until(lambda: (folder / "store" / "watches").exists(), "nobody watches")
            time.sleep(8)  # the first look is over
            going.schedule("resume")
            _keep_busy(going, process, upto)
            _quiet(going)
        going.restarts += 1
        if upto < wanted:
            going.drop()  # while nobody watches
    with going.serving():
        time.sleep(8)
        going.schedule("resume")
        _until(lambda: going.over("tick") >= ticks, "too few runs of the schedule")
        _quiet(going)
        return _report(going, time.monotonic() - began)


def _keep_busy(going: Soak, process: psutil.Process, upto: int) -> None:
    """Let files land, but never many more than have been dealt with."""
    while going.files < upto or going.over("inbox") < upto:
        if going.files < upto and going.files - going.over("inbox") < 2 * going.limit:
            going.drop()
        if going.over("inbox") > 3:
            going.memory.append(process.memory_info().rss / 2**20)
        time.sleep(1)


def _quiet(going: Soak) -> None:
    """Wait until all that files have started is over, and, without its schedule, all else too."""
    going.schedule("pause")
    _until(lambda: going.over("inbox") >= going.files, "a file has started no run")
    _until(lambda: going.over("after") >= going.files, "a result has started no run")
    _until(lambda: not _open(going), "a run does not end")


def _open(going: Soak) -> int:
    return sum(
        run["state_type"] in ("PENDING", "RUNNING")
        for flow in ("inbox", "after", "tick")
        for run in going.runs(flow)
    )


def _until(is_so: Any, else_: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            print(f"{else_}: given up after {PATIENCE_S:.0f} s")
            return
        time.sleep(1)


def _report(going: Soak, seconds: float) -> int:
    """Print the table, and count the faults."""
    found = {flow: going.runs(flow) for flow in ("inbox", "after", "tick")}
    by_file = Counter(Path(run["parameters"]["csv"]).stem for run in found["inbox"])
    by_text = Counter(run["parameters"]["text"] for run in found["after"])
    moments = Counter(run["expected_start_time"] for run in found["tick"])
    names = [str(number) for number in range(1, going.files + 1)]
    faults = {
        "files without a run": sum(by_file[name] == 0 for name in names),
        "files with several": sum(count > 1 for count in by_file.values()),
        "results without a run": sum(by_text[f"file {name}"] == 0 for name in names),
        "results with several": sum(count > 1 for count in by_text.values()),
        "moments with several": sum(count > 1 for count in moments.values()),
        "moments left out": max(0, _gaps(list(moments), going.tick_s) - going.restarts),
        "runs not Completed": sum(
            run["state_name"] != "Completed"
            for runs in found.values()
            for run in runs
            if run["state_type"] not in ("PENDING", "RUNNING", "SCHEDULED")
        ),
    }
    early, late = _memory(going.memory)
    if late > early * GROWTH:
        faults["growing memory"] = 1
    total = sum(map(len, found.values()))
    print(f"runs                   {total:6d}  in {seconds:.0f} s, {going.restarts} restarts")
    for flow, runs in found.items():
        print(f"  {flow:<20} {len(runs):6d}")
    for what, count in faults.items():
        print(f"{what:<22} {count:6d}")
    print(f"memory of serve, MiB   {early:6.0f}  → {late:.0f}")
    return sum(faults.values())


def _gaps(moments: list[str], tick_s: int) -> int:
    """How often the schedule stood still: once a restart it is paused."""
    seconds = sorted(datetime.fromisoformat(moment).timestamp() for moment in moments)
    return sum(after - before > 1.5 * tick_s for before, after in pairwise(seconds))


def _memory(samples: list[float]) -> tuple[float, float]:
    """Medians of the first and of the last fifth."""
    some = max(1, len(samples) // 5)
    first, last = sorted(samples[:some]), sorted(samples[-some:])
    return first[len(first) // 2], last[len(last) // 2]


def main() -> None:
    """Read the command line, and soak."""
    parser = argparse.ArgumentParser("python -m tests.deploy.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--limit", type=int, default=4, help="runs at a time")
    parser.add_argument("--every", type=int, default=15, help="seconds between scheduled runs")
    given = parser.parse_args()
    os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")
    with tempfile.TemporaryDirectory(prefix="mlpipe-soak-") as folder:
        home = Path(folder) / "server"
        home.mkdir()
        os.environ["PREFECT_HOME"] = str(Path(folder) / "home")
        with running_postgres() as database:
            os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = database
            with running_server(home) as server:
                faults = soak(given.runs, given.limit, given.every, Path(folder), server)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
