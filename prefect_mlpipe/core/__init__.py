"""Values, keys, records and decisions; knows nothing of Prefect and Dask."""
