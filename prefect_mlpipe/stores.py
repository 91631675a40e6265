"""Opens the store that a call, a pipeline or the settings name.

Here the settings meet the core, which reads none: where this machine keeps copies of remote
values, and which files it has read before. Knows nothing of pipelines.
"""

from __future__ import annotations

from typing import Any

from prefect_mlpipe.core import files
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.settings import Settings


def open_store(store: str | Store | None = None, **storage_options: Any) -> Store:
    """Return a store by URL, the one given, or that of the settings. Touches nothing yet.

    print(open_store().usage())                                       # that of the settings
    open_store("/data/store").prune(keep_last=20, dry_run=True)
    open_store("s3://ml/store", endpoint_url="https://minio.example.com")

    Args:
        store: a folder or any fsspec URL.
        storage_options: for the file system of that URL, in the words of fsspec; never printed.
    """
    settings = Settings()
    copies.use_folder(settings.cache)
    copies.use_limit(settings.cache_size)
    key = settings.signing_key.get_secret_value() if settings.signing_key else None
    if isinstance(store, Store):
        opened = store.signing(key) if key is not None else store
    else:
        opened = Store(store or settings.store, signing_key=key, **storage_options)
    files.use_stat_index(opened.stat_index)
    return opened
