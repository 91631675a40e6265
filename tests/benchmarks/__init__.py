"""What reuse and execution cost, beside other ways to do the same. `python -m tests.benchmarks`."""
