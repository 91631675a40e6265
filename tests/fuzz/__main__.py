"""`python -m tests.fuzz`: edit random projects, or look whether planted faults are found.

python -m tests.fuzz --edits 20000 --seed 1      # compare 20,000 edits with the oracle
python -m tests.fuzz --plant all                 # plant each fault, and edit until it shows
python -m tests.fuzz --plant defaults,bases --edits 3000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from typing import Any

from tests.fuzz import faults, running
from tests.fuzz.campaign import Counts
from tests.fuzz.spreading import Workers, campaign, in_blocks


def main() -> int:
    """Read the arguments and do what they ask; 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--edits", type=int, default=2000, help="of one fault: at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", default="", help="names of faults with commas, or 'all'")
    parser.add_argument("--json", action="store_true", help="print what was counted as JSON")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != str(options.seed):  # the order of sets is chance, too
        os.environ["PYTHONHASHSEED"] = str(options.seed)
        os.execv(sys.executable, [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]])
    os.environ["PREFECT_MLPIPE_CACHE"] = tempfile.mkdtemp(prefix="mlpipe-fuzz-cache-")
    os.chdir(tempfile.gettempdir())  # no settings of the project that this is part of
    running.prepare()
    if options.plant:
        return _hunt(options)
    started = time.monotonic()
    counts = in_blocks(options.seed, options.edits, options.processes)
    _print(counts, time.monotonic() - started, options.json)
    return bool(counts.wrong or counts.needless or counts.failures)


def _hunt(options: Any) -> int:
    names = [*faults.BY_NAME] if options.plant == "all" else options.plant.split(",")
    jobs = [lambda name=name: _with(name, options.seed, options.edits) for name in names]
    found: dict[str, Any] = {}
    for name, counts in zip(names, Workers(options.processes).each(jobs), strict=True):
        hit = counts.wrong[0].partition(":")[0] if counts.wrong else None
        found[name] = {"found": bool(hit), "edits": counts.edits, "by": hit}
        if not options.json:
            said = f"after {counts.edits} edits, by {hit}" if hit else "NOT FOUND"
            print(f"{name:28} {said}", flush=True)
    hits = sum(each["found"] for each in found.values())
    print(json.dumps(found) if options.json else f"{hits} of {len(found)} faults found")
    return int(hits < len(found))


def _with(fault: str, seed: int, edits: int) -> Counts:
    faults.plant(fault)
    return campaign(f"{seed}:{fault}", edits, hunting=True)


def _print(counts: Counts, seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts.to_json()))
        return
    for kind, (edits, changed) in sorted(counts.kinds.items()):
        print(f"{kind:32} {edits:6} edits {changed:6} changed the value")
    print(f"refused: {dict(counts.refused.most_common(12))}")
    print(f"reran where that is left open: {dict(counts.reran)}")
    for title, texts in (
        ("WRONG REUSE", counts.wrong),
        ("NEEDLESS RERUN", counts.needless),
        ("FAILURE", counts.failures),
    ):
        for text in texts[:5]:
            print(f"\n{title}: {text}\n")
    print(
        f"{counts.edits} edits in {seconds:.0f} s, {counts.changed} ({counts.share:.0%}) changed "
        f"the value; {counts.fresh} in fresh processes, {counts.in_place} in place, "
        f"{counts.neutral} of spelling alone; {counts.broken} more broke the project, "
        f"{counts.raising} of which ran, {sum(counts.refused.values())} were refused\n"
        f"{counts.undetermined} projects give another value each time\n"
        f"{len(counts.wrong)} wrong reuses, {len(counts.failures)} failures; "
        f"needless: {len(counts.needless)}, whole module taken: {counts.whole}"
    )


if __name__ == "__main__":
    sys.exit(main())
