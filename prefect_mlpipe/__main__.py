"""`python -m prefect_mlpipe` is `mlpipe`."""

from __future__ import annotations

from prefect_mlpipe.cli.app import main

if __name__ == "__main__":
    main()
