"""What the errors of remote file systems mean, and what to do about each.

Knows the words of S3 and of boto, by name: neither is imported. Options of a store, and so its
credentials, never reach a message.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefect_mlpipe.core.places.backends import unavailable
from prefect_mlpipe.errors import StoreUnavailable

LONGEST = 300  # characters of what a server said

_CREDENTIALS = (
    "Check the credentials: `key=` and `secret=`, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(and AWS_SESSION_TOKEN), or AWS_PROFILE; and the clock of this machine."
)
_PERMISSION = (
    "Ask for the permission to list the bucket and to read, write and delete objects in it."
)
_BUCKET = "Create the bucket (it is not made for you), or correct its name."
_REGION = (
    "Give the region of the bucket: AWS_DEFAULT_REGION, or `client_kwargs={'region_name': ...}`."
)
_ENDPOINT = "Check the address of the S3 server: `endpoint_url=` or AWS_ENDPOINT_URL."

# Codes of S3's answers, and names of boto's exceptions.
_ADVICE = {
    **dict.fromkeys(
        (
            *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
            *(
                "AuthFailure",
                "InvalidClientTokenId",
                "TokenRefreshRequired",
                "RequestTimeTooSkewed",
            ),
            *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
            *("CredentialRetrievalError", "UnsupportedAlgorithm", "MissingSecurityHeader"),
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "403", "Forbidden"), _PERMISSION),
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName", "ParamValidationError"), _BUCKET),
    **dict.fromkeys(
        (
            *("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"),
            *("IllegalLocationConstraintException", "InvalidRegionError", "NoRegionError", "301"),
        ),
        _REGION,
    ),
    **dict.fromkeys(
        (
            *("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError"),
            *("ReadTimeoutError", "SSLError", "ProxyConnectionError", "ResponseParserError"),
            *("InvalidEndpointURLError", "404", "405", "NoSuchUpload"),
        ),
        _ENDPOINT,
    ),
}
_ABSENT = {"NoSuchKey", "NoSuchVersion"}
_IN_USERINFO = "***"


def remote_unavailable(url: str, operation: str, error: BaseException) -> StoreUnavailable:
    """The error for a remote store: where, what was tried, what the server said, what to do."""
    codes = [code for one in _chain(error) for code in _codes(one)]
    known = next((code for code in codes if code in _ADVICE), None)
    if known is None:
        return unavailable(shown(url), operation, error)
    said = " ".join(str(error).split())[:LONGEST]
    return StoreUnavailable(
        f"the store {shown(url)} cannot be used.",
        {"store": shown(url), "while": operation, "error": f"{known}: {said}"},
        _ADVICE[known],
    )


def is_absent(error: BaseException) -> bool:
    """Tell whether just one object is not there; not so if its bucket or server is not."""
    if not isinstance(error, FileNotFoundError):
        return False
    answers = [one for one in _chain(error) if _code(one)]
    return not answers or _code(answers[0]) in _ABSENT


def shown(url: str) -> str:
    """A URL without what may be a secret in it: a password, a token, a query."""
    head, separator, _ = url.partition("?") if "://" in url else (url, "", "")
    shortened = f"{head}?{_IN_USERINFO}" if separator else url
    protocol, _, rest = shortened.partition("://")
    user, at, host = rest.partition("@")
    if not at or "/" in user:
        return shortened
    name = f"{user.partition(':')[0]}:" if ":" in user else ""
    return f"{protocol}://{name}{_IN_USERINFO}@{host}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _codes(error: BaseException) -> Iterator[str]:
    if code := _code(error):
        yield code
    yield type(error).__name__


def _code(error: BaseException) -> str:
    """What S3 calls it, or else the status of the answer."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return ""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(answer.get("Error", {}).get("Code") or status)
