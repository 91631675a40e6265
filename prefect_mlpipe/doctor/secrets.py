"""Strikes secrets out of what is said, as a last resort.

Knows which settings of ours, of Prefect and of S3 are secret. Checks leave them out by themselves;
but an error of some library may quote a URL or a header.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from prefect.settings import get_current_settings

from prefect_mlpipe.doctor.findings import Finding

HIDDEN = "***"

_SHORTEST = 4  # what is shorter stands in many a word
_NAMES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_MLPIPE_SIGNING_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
)
_URLS = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_API_URL", "PREFECT_MLPIPE_STORE")


def without_secrets(finding: Finding) -> Finding:
    """Return a finding with `***` in place of each secret."""
    secrets = sorted(known_secrets(), key=len, reverse=True)
    facts = {name: _struck(value, secrets) for name, value in finding.facts.items()}
    return replace(finding, facts=facts, mend=_struck(finding.mend, secrets))


def known_secrets() -> set[str]:
    """Return what must not be shown: passwords, keys, and the forms in which they are sent."""
    found = {form for secret in _said() for form in _forms(secret)}
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _said() -> Iterator[str]:
    settings = get_current_settings()
    for held in (settings.api.auth_string, settings.api.key, settings.server.api.auth_string):
        if held is not None:
            yield str(held.get_secret_value())
    yield from filter(None, map(os.environ.get, _NAMES))
    for url in filter(None, (*map(os.environ.get, _URLS), settings.api.url)):
        yield from _in_url(str(url))


def _in_url(url: str) -> Iterator[str]:
    password = urlsplit(url).password
    if password:
        yield from (password, unquote(password))


def _forms(secret: str) -> Iterable[str]:
    password = secret.partition(":")[2]
    return (secret, password, base64.b64encode(secret.encode()).decode())


def _struck(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
