"""Executes a graph: keys, decisions, the ready-queue, calls. Knows no Prefect and no Dask."""
