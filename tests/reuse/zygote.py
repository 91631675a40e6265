"""A process that has imported everything but the user's code, and forks one for each job.

So each job has a process that has never seen the project, at a hundredth of the price of a new
interpreter. It speaks lines of JSON: `["run", job_file]` gives the process id, `["wait", id]` gives
its exit status, negative for a signal.
"""

from __future__ import annotations

import gc
import json
import os
import sys


def main() -> None:
    import pandas
    import PIL.Image
    import polars
    import pyarrow
    import sklearn.ensemble
    import sklearn.tree
    import xarray

    import prefect_mlpipe.compute.dask
    import prefect_mlpipe.deploy.triggers
    import prefect_mlpipe.localruns
    from prefect_mlpipe import pipeline
    from tests.reuse import child

    @pipeline
    def warm(x: int = 1) -> int:  # what Prefect imports for the first flow of a process
        return x

    assert all((pandas, PIL.Image, polars, pyarrow, xarray))
    assert all((sklearn.ensemble, sklearn.tree, prefect_mlpipe.deploy.triggers, warm))
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        what, argument = json.loads(line)
        if what == "wait":
            _, status = os.waitpid(argument, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        process = os.fork()
        if process == 0:
            status = 1
            try:
                printed = os.open(f"{argument}.printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, 0)
                os.dup2(printed, 1)
                os.dup2(printed, 2)
                child.finish(argument)
                sys.stdout.flush()
                sys.stderr.flush()
                status = 0
            finally:
                os._exit(status)
        print(process, flush=True)


if __name__ == "__main__":
    main()
