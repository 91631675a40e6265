"""Rows of our own: what the options of a step and of a call do to reuse, and what stays out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reuse.lab import Lab, Row, check
from tests.reuse.rows import check_price, edited, price, rerun, reuse, work

CLEAN = "def clean(x): return x + 1"
LOCKED = work("fetch(x)", "from helpers import fetch") | {
    "helpers.py": """
class Session:
    def __init__(self, base): self.base, self.pool = base, open(__file__)
    def get(self, x): return self.base + x

SESSION = Session(1)
K = 1
def fetch(x): return SESSION.get(x) + K
"""
}


def decorated(files: dict[str, str], decorator: str) -> dict[str, str]:
    return files | edited(files, "main.py", "@step\n", f"{decorator}\n")


def declared(helpers: str) -> dict[str, str]:
    """A step that finds a function at run time only, and declares it."""
    found = "__import__(''.join(['hel', 'pers'])).clean(x)"
    files = work(found, "from helpers import clean", helpers=helpers)
    return decorated(files, "@step(reads=[clean])")


SEEN = [
    rerun(
        "a version is given",
        work("x + 1"),
        "@step\n",
        "@step(version='2')\n",
        "version changed: none → 2",
        same_value=True,
    ),
    rerun(
        "another version",
        decorated(work("x + 1"), "@step(version=1)"),
        "version=1",
        "version=2",
        "version changed: 1 → 2",
        same_value=True,
    ),
    rerun(
        "a function that is declared",
        declared(CLEAN),
        "x + 1",
        "x + 2",
        "reads changed: clean (code of helpers.clean)",
        file="helpers.py",
    ),
    rerun(
        "a helper of a function that is declared",
        declared("def deep(x): return x + 1\ndef clean(x): return deep(x)"),
        "x + 1",
        "x + 2",
        "reads changed: clean (code of helpers.deep)",
        file="helpers.py",
    ),
    rerun(
        "a global beside one that is ignored",
        decorated(LOCKED, "@step(ignore=['helpers.SESSION'])"),
        "K = 1",
        "K = 2",
        "code changed: helpers.K",
        file="helpers.py",
    ),
    rerun(
        "the flags of a compiled pattern",
        work("len(WORD.findall('Owl owl'))", "import re\nWORD = re.compile('owl')"),
        "'owl')",
        "'owl', re.IGNORECASE)",
        "code changed: main.WORD",
    ),
    rerun(
        "a parameter beside one that is ignored",
        {
            "main.py": """
@step(ignore=["shown"])
def work(x: int, shown: str = "a") -> int:
    ran("work")
    return x

@pipeline
def main(x: int = 1, shown: str = "a") -> int:
    return work(x, shown)
"""
        },
        'x: int = 1, shown: str = "a"',
        'x: int = 2, shown: str = "b"',
        "parameter 'x' changed: 1 → 2",
    ),
]
NOT_SEEN = [
    reuse(
        f"the option {option}",
        work("x + 1"),
        "@step\n",
        f"@step({option})\n",
    )
    for option in (
        "retries=3, retry_delay_seconds=2",
        "timeout_seconds=100",
        "tags=['night']",
        "name='other'",
        "ignore=['elsewhere.SESSION']",
        "cache_expiration=__import__('datetime').timedelta(days=9)",
    )
] + [
    reuse(
        "a lock and a logger that the step uses",
        work(
            "guarded(x)",
            "import logging, threading\nLOG = logging.getLogger('birds')\nLOCK = threading.Lock()\n"
            "def guarded(x):\n    with LOCK:\n        LOG.info('x')\n        return x",
        ),
        "threading.Lock()",
        "threading.Lock()  # held while x is read",
    ),
    reuse(
        "the present value of a ContextVar",
        work(
            "len(NAME.get('') * 0) + x",
            "from contextvars import ContextVar\nNAME = ContextVar('name')\nNAME.set('a')",
        ),
        "set('a')",
        "set('b')",
    ),
]


@pytest.mark.parametrize("row", SEEN + NOT_SEEN, ids=lambda row: row.name)
def test_options(lab: Lab, row: Row) -> None:
    check(lab, row)


def test_what_is_ignored_is_not_seen(lab: Lab) -> None:
    project = decorated(LOCKED, "@step(ignore=['helpers.SESSION'])")
    check_price(lab, price(reuse("ignored", project, "n(1)", "n(2)", file="helpers.py")))


def test_a_global_without_content_is_refused_with_the_way_to_it(lab: Lab) -> None:
    lab.write(LOCKED)
    outcome = lab.run()
    assert outcome.ran == []
    assert outcome.error is not None
    assert outcome.error.startswith(
        "UnstableCode: Step 'work' cannot be cached: its code reaches something without content."
    )
    assert "work → helpers.fetch → helpers.SESSION" in outcome.error
    assert "@step(ignore=['helpers.SESSION" in outcome.error
    assert outcome.error.endswith("or turn caching off with @step(cache=False).")


def test_asserts_are_code_so_minus_o_has_records_of_its_own(lab: Lab) -> None:
    lab.write(work("1 if __debug__ else 2"))
    assert lab.run().value == "builtins.int 1"
    lab.flags = ["-O"]
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == ("builtins.int 2", ["work"])
    assert "environment changed: optimize absent → 1" in outcome.reasons()
    assert outcome.plan["work"] == ("run", outcome.reasons())
    lab.flags = []
    again = lab.run()
    assert (again.value, again.ran) == ("builtins.int 1", [])


SECRET = """
import dataclasses
from pydantic import BaseModel, Secret, SecretStr

class Login(BaseModel):
    name: str = "owl"
    token: SecretStr

@dataclasses.dataclass
class Access:
    name: str
    token: object

@step
def work(x: object) -> object:
    ran("work")
    token = x.token if hasattr(x, "token") else x["token"] if isinstance(x, dict) else x
    return len(token.get_secret_value())

@pipeline
def main(x: object) -> object:
    return work(x)
"""
SECRETS = {
    "a secret": "SecretStr({})",
    "a secret in a dict": "{{'token': SecretStr({})}}",
    "a secret in a model": "Login(token={})",
    "a secret in a dataclass": "Access('owl', SecretStr({}))",
    "a secret of another type": "Secret[str]({})",
}


def everything_in(folder: str) -> bytes:
    return b"".join(file.read_bytes() for file in Path(folder).rglob("*") if file.is_file())


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_neither_in_the_key_nor_in_the_store(lab: Lab, name: str) -> None:
    lab.write(SECRET)
    first = lab.run(f"x={SECRETS[name].format(repr('swordfish'))}", plan=True)
    assert (first.value, first.ran) == ("builtins.int 9", ["work"])
    other = lab.run(f"x={SECRETS[name].format(repr('open sesame'))}", plan=True)
    assert (other.value, other.ran) == (first.value, []), "the price: the old value is given"
    for outcome in (first, other):
        assert "swordfish" not in outcome.printed + outcome.plan_printed + str(outcome.steps)
    assert b"swordfish" not in everything_in(lab.store)


def test_what_stands_beside_a_secret_counts(lab: Lab) -> None:
    lab.write(SECRET)
    assert lab.run("x=Login(token='a')").ran == ["work"]
    outcome = lab.run("x=Login(name='kea', token='a')", plan=True)
    assert (
        outcome.reasons()
        == outcome.plan["work"][1]
        == ["parameter 'x' changed: .name: 'owl' → 'kea'"]
    )


@pytest.mark.parametrize("made", ["SecretStr('a')", "{'login': [SecretStr('a')]}", "Login()"])
def test_a_secret_that_a_step_returns_is_refused(lab: Lab, made: str) -> None:
    lab.write(
        f"""
        from pydantic import BaseModel, SecretStr

        class Login(BaseModel):
            token: SecretStr = SecretStr("a")

        @step
        def work() -> object:
            ran("work")
            return {made}

        @pipeline
        def main() -> object:
            return work()
        """
    )
    outcome = lab.run()
    assert outcome.error is not None
    assert "Step 'work' returned something that cannot be stored." in outcome.error
    assert "a secret is not written into the store" in outcome.error


VARIABLE = decorated(work("os.environ.get('ZONE')", "import os"), "@step(reads=[EnvVar('ZONE')])")


def test_a_variable_that_is_unset_is_not_an_empty_one(lab: Lab) -> None:
    lab.write(VARIABLE)
    assert lab.run().value == "builtins.NoneType None"
    outcome = lab.run(environ={"ZONE": ""}, plan=True)
    assert outcome.value == "builtins.str ''"
    assert outcome.reasons() == outcome.plan["work"][1] == ["reads changed: ZONE"]
    assert lab.run().ran == []


CHAIN = """
import datetime

@step
def make(k: int) -> list:
    ran("make")
    return [k]

{decorator}
def clean(x: list) -> list:
    ran("clean")
    return [*x, 0]

@step
def train(x: list) -> int:
    ran("train")
    return len(x)

@pipeline
def main() -> list:
    one = clean(make(1))
    other = clean(make(2))
    return [train(one), train(other)]
"""


def test_expiry_is_that_of_the_record_against_the_present_option(lab: Lab) -> None:
    lab.write(CHAIN.format(decorator="@step"))
    first = lab.run()
    decorator = "@step(cache_expiration=datetime.timedelta({}))"
    lab.write(CHAIN.format(decorator=decorator.format("microseconds=1")))
    for _ in range(2):
        outcome = lab.run(plan=True)
        assert (outcome.value, outcome.ran) == (first.value, ["clean", "clean"])
        assert outcome.reasons("clean") == ["expired: older than 0:00:00.000001"]
        assert outcome.plan["clean#2"] == ("run", outcome.reasons("clean#2"))
        assert outcome.plan["train"] == ("run?", ["input 'x' may change (from clean)"])
    lab.write(CHAIN.format(decorator=decorator.format("days=1")))
    assert lab.run().ran == []


REFRESHED = {
    "True": ["clean", "clean#2", "make", "make#2", "train", "train#2"],
    "['clean']": ["clean", "clean#2"],
    "['clean#2']": ["clean#2"],
    "['make', 'train#2']": ["make", "make#2", "train#2"],
}


@pytest.mark.parametrize("refresh", REFRESHED)
def test_what_is_refreshed_runs_and_cuts_off_what_is_below(lab: Lab, refresh: str) -> None:
    lab.write(CHAIN.format(decorator="@step"))
    first = lab.run()
    outcome = lab.run(options=f"refresh={refresh}", plan=True)
    assert (outcome.value, outcome.error) == (first.value, None)
    ran = [name for name, step in outcome.steps.items() if step["state"] == "ran"]
    assert sorted(ran) == REFRESHED[refresh]
    for name in ran:
        assert outcome.reasons(name) == ["refresh asked"]
        assert outcome.plan[name] == ("run", ["refresh asked"])
    assert lab.run().ran == [], "the pointer has moved to what was made last"


def test_a_step_without_caching_runs_each_time_and_what_is_below_is_cut_off(lab: Lab) -> None:
    lab.write(CHAIN.format(decorator="@step(cache=False)"))
    first = lab.run()
    assert first.value == lab.oracle()
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == (first.value, ["clean", "clean"])
    assert outcome.reasons("clean") == outcome.plan["clean"][1] == ["cache off"]
    assert outcome.plan["train"] == ("run?", ["input 'x' may change (from clean)"])
