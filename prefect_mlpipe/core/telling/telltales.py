"""The public names of what is not a value: whoever reads them reads what no key can hold.

Tables only, and how an object is known again by its public name when it was imported by `from`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, Final

# Dotted name → what reading it means. `unseeded`: only when it is called without a seed.
TELLTALES: Final[dict[str, str]] = {
    **dict.fromkeys(("os.environ", "os.environb", "os.getenv", "os.getenvb"), "environment"),
    **dict.fromkeys(("os.getcwd", "os.getcwdb", "pathlib.Path.cwd"), "folder"),
    **dict.fromkeys(
        (
            *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
            *("time.strftime", "datetime.datetime.now", "datetime.datetime.today"),
            *("datetime.datetime.utcnow", "datetime.date.today", "pandas.Timestamp.now"),
            *("pandas.Timestamp.today", "pandas.Timestamp.utcnow"),
        ),
        "time",
    ),
    **dict.fromkeys(
        (
            *("os.urandom", "uuid.uuid1", "uuid.uuid4", "random.SystemRandom"),
            *("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.normal"),
        ),
        "chance",
    ),
    **dict.fromkeys(
        (
            *("random.Random", "numpy.random.default_rng", "numpy.random.RandomState"),
            "numpy.random.SeedSequence",
        ),
        "unseeded",
    ),
    **dict.fromkeys(("random.seed", "numpy.random.seed", "torch.manual_seed"), "seed"),
    **dict.fromkeys(
        (
            *("builtins.open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"),
            *("pathlib.Path", "joblib.load", "torch.load", "PIL.Image.open", "skops.io.load"),
            *("numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile"),
            *(f"pandas.read_{kind}" for kind in ("csv", "table", "json", "parquet", "feather")),
            *(f"pandas.read_{kind}" for kind in ("excel", "pickle", "hdf", "orc", "xml", "fwf")),
            *(f"polars.{verb}_{k}" for verb in ("read", "scan") for k in ("csv", "parquet", "ipc")),
            *("polars.read_json", "polars.scan_ndjson", "pyarrow.parquet.read_table"),
            *("pyarrow.csv.read_csv", "pyarrow.feather.read_table", "xarray.open_dataset"),
        ),
        "file",
    ),
    **dict.fromkeys(
        (
            *("urllib.request.urlopen", "urllib.request.urlretrieve", "socket.create_connection"),
            *("socket.socket", "socket.gethostname", "os.system", "os.popen", "builtins.input"),
            *("sqlite3.connect", "duckdb.connect", "psycopg.connect", "psycopg2.connect"),
            *("sqlalchemy.create_engine", "pymongo.MongoClient", "redis.Redis", "boto3.client"),
            *("boto3.resource", "pandas.read_sql", "pandas.read_sql_query"),
            *("pandas.read_sql_table", "fsspec.open", "fsspec.filesystem"),
        ),
        "outside",
    ),
    **dict.fromkeys(
        (
            *("importlib.import_module", "builtins.__import__", "runpy.run_path"),
            *("runpy.run_module", "importlib.metadata.entry_points", "pkg_resources"),
        ),
        "code",
    ),
}

# Of these modules every name tells, but for some.
ANY_OF: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "random": ("chance", frozenset({"getstate", "setstate"})),
    "numpy.random": (
        "chance",
        frozenset(
            {
                *("Generator", "BitGenerator", "PCG64", "PCG64DXSM", "MT19937", "Philox"),
                *("SFC64", "get_state", "set_state", "get_bit_generator", "set_bit_generator"),
                *("bit_generator", "mtrand"),
            }
        ),
    ),
    "secrets": ("chance", frozenset({"compare_digest"})),
    "requests": ("outside", frozenset({"exceptions", "Response", "codes", "RequestException"})),
    "httpx": ("outside", frozenset({"Response", "Timeout", "Limits", "HTTPError", "URL"})),
    "aiohttp": ("outside", frozenset({"ClientError", "ClientTimeout"})),
    "subprocess": (
        "outside",
        frozenset(
            {
                *("PIPE", "STDOUT", "DEVNULL", "CalledProcessError", "TimeoutExpired"),
                *("SubprocessError", "CompletedProcess", "list2cmdline"),
            }
        ),
    ),
}

TOPS: Final = frozenset(name.partition(".")[0] for name in (*TELLTALES, *ANY_OF))

# With at most so many arguments they tell the present time, with more they convert another.
NOW_ONLY_WITH: Final = {
    **dict.fromkeys(("time.localtime", "time.gmtime", "time.ctime"), 0),
    "time.strftime": 1,
}

# Methods of a path that read what is there.
READING_METHODS: Final = frozenset({"read_text", "read_bytes", "iterdir", "glob", "rglob"})

# What functions call the path that they take.
PATH_WORDS: Final = (
    *("file", "path", "filename", "fname", "fp", "f", "source", "io"),
    *("filepath_or_buffer", "path_or_buf", "path_or_buffer", "where"),
)


def is_read(mode: Sequence[object]) -> bool:
    """Return whether a mode of `open`, as far as it is known, reads what was there before."""
    return not (mode and isinstance(mode[0], str) and mode[0][:1] in ("w", "a", "x"))


def telltale(name: str) -> tuple[str, str | None]:
    """Return the part of a dotted name that tells something, and what it tells."""
    head = name
    while head:
        kind = TELLTALES.get(head)
        if kind is not None:
            return head, kind
        above, _, last = head.rpartition(".")
        if above in ANY_OF:
            kind, but = ANY_OF[above]
            return head, None if last in but or last.startswith("_") else kind
        head = above
    return name, None


def public_names() -> dict[int, tuple[str, object]]:
    """Return id → public name and object, for what modules are loaded now."""
    return _public_names(tuple(name for name in _MODULES if name in sys.modules))


_MODULES: Final = sorted(
    {
        ".".join(parts[:end])
        for name in TELLTALES
        for parts in [name.split(".")]
        for end in range(1, len(parts))
    }
    | ANY_OF.keys()
)


@functools.lru_cache(1)
def _public_names(loaded: tuple[str, ...]) -> dict[int, tuple[str, object]]:
    found: dict[int, tuple[str, object]] = {}
    for name in TELLTALES:
        module = next((m for m in reversed(loaded) if name.startswith(f"{m}.")), None)
        if module is None or module == "builtins":
            continue
        attribute = name[len(module) + 1 :].partition(".")[0]
        value = _contents(module).get(attribute)
        if value is not None:
            found.setdefault(id(value), (f"{module}.{attribute}", value))
    for module in ANY_OF.keys() & set(loaded):
        for attribute, value in _contents(module).items():
            if callable(value) and telltale(f"{module}.{attribute}")[1] is not None:
                found.setdefault(id(value), (f"{module}.{attribute}", value))
    return found


def _contents(module: str) -> dict[str, Any]:
    return dict(getattr(sys.modules[module], "__dict__", {}))
