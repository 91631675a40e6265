"""What all tests share: a home of their own for Prefect, one server for the session, a browser,
S3 servers.

Nothing here imports Prefect before a test asks for it: the tests of `core` pay for none of this.
A test that forgets to ask for `api` gets Prefect's error that no API is set, and never a temporary
server or the user's own.
"""

from __future__ import annotations

import os
import tempfile

_HOME = tempfile.TemporaryDirectory(prefix="mlpipe-tests-", ignore_cleanup_errors=True)
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]  # the user's own API and settings
os.environ.update(
    DO_NOT_TRACK="1",
    PREFECT_HOME=_HOME.name,
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_ENABLED="false",
)

from tests.browser import browser  # noqa: E402
from tests.project import project  # noqa: E402
from tests.s3 import bucket, moto, rclone, s3  # noqa: E402
from tests.server import api, prefect_server  # noqa: E402

__all__ = ["api", "browser", "bucket", "moto", "prefect_server", "project", "rclone", "s3"]
