"""Reuse: each test asserts the value and what ran."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import SecretStr

import prefect_mlpipe
from prefect_mlpipe import EnvVar, File, Pipeline, pipeline, resolve, step
from prefect_mlpipe.errors import StoreUnavailable
from tests.project import Project, ran


class Split(NamedTuple):
    train: list[int]
    test: list[int]


@step
def load(n: int) -> list[int]:
    ran("load")
    return [*range(n)]


@step
def split(table: list[int], at: int = 2) -> Split:
    ran("split")
    return Split(table[:at], table[at:])


@step
def train(table: list[int], lr: float = 0.5) -> float:
    ran("train")
    return sum(table) * lr


@step
def evaluate(model: float, table: list[int]) -> float:
    ran("evaluate")
    return model * len(table)


@pipeline
def digits(n: int = 4, at: int = 2, lr: float = 0.5) -> float:
    parts = split(load(n), at)
    return evaluate(train(parts.train, lr), parts.test)


def reasons(pipeline: Any, step: str) -> list[str]:
    return [str(reason) for reason in pipeline.runs.last()[step].reasons]


def test_the_second_run_runs_nothing(project: Project) -> None:
    p = project.own(digits)
    assert p.local() == 1.0
    assert project.ran() == ["evaluate", "load", "split", "train"]
    assert reasons(p, "train") == ["first run"]
    assert p.local() == 1.0
    assert project.ran() == []
    assert {step.state for step in p.runs.last()} == {"reused"}


def test_a_changed_parameter_runs_what_depends_on_it(project: Project) -> None:
    p = project.own(digits)
    p.local()
    project.ran()
    assert p.local(lr=1.0) == 2.0
    assert project.ran() == ["evaluate", "train"]
    assert reasons(p, "train") == ["parameter 'lr' changed: 0.5 → 1.0"]
    assert reasons(p, "evaluate") == ["input 'model' changed (from train)"]


def test_early_cut_off_is_per_field(project: Project) -> None:
    p = project.own(digits)
    p.local()
    project.ran()
    assert p.local(n=5) == 1.5  # `train` is what it was: only `test` has one more
    assert project.ran() == ["evaluate", "load", "split"]
    assert reasons(p, "evaluate") == ["input 'table' changed (from split.test)"]


def test_types_and_signs_differ_where_python_takes_them_for_equal(project: Project) -> None:
    @step
    def show(x: Any) -> str:
        ran("show")
        return repr(x)

    @pipeline
    def p(x: Any) -> str:
        return show(x)

    owned = project.own(p)
    values: list[Any] = [1, 1.0, True, "1", 0.0, -0.0, [1], (1,), {1}, {"a": 1, "b": 2}]
    for value in [*values, {"b": 2, "a": 1}]:
        assert owned.local(value) == repr(value)
    assert len(project.ran()) == len(values) + 1
    for value in values:
        assert owned.local(value) == repr(value)
    assert project.ran() == []


def test_code_of_a_helper_in_another_module_counts_and_comments_do_not(project: Project) -> None:
    def built(constant: int, comment: str = "") -> Pipeline[Any, Any]:
        project.module("helpers", f"def scale(x):  # {comment}\n    return x * {constant}\n")
        module = project.module(
            "flowing",
            """
            from prefect_mlpipe import pipeline, step
            from tests.project import ran
            import helpers

            @step
            def one() -> int:
                ran("one")
                return 1

            @step
            def scaled(x: int) -> int:
                ran("scaled")
                return helpers.scale(x)

            @step
            def sign(x: int) -> int:
                ran("sign")
                return 1 if x > 0 else -1

            @step
            def shown(x: int) -> str:
                ran("shown")
                return str(x)

            @pipeline
            def p() -> str:
                return shown(sign(scaled(one())))
            """,
        )
        return project.own(module.p)

    p = built(2)
    assert p.local() == "1"
    assert project.ran() == ["one", "scaled", "shown", "sign"]
    assert built(2, "doubled").local() == "1"
    assert project.ran() == []
    p = built(3)
    assert p.local() == "1"
    assert project.ran() == ["scaled", "sign"]  # `sign` makes the same, so `shown` is spared
    assert reasons(p, "scaled") == ["code changed: helpers.scale"]


def test_a_global_that_was_changed_between_two_runs_is_seen(project: Project) -> None:
    module = project.module(
        "globals_",
        """
        from prefect_mlpipe import pipeline, step
        from tests.project import ran
        FACTORS = [2]

        @step
        def scaled(x: int) -> int:
            ran("scaled")
            return x * FACTORS[0]

        @pipeline
        def p(x: int = 1) -> int:
            return scaled(x)
        """,
    )
    p = project.own(module.p)
    assert p.local() == 2
    module.FACTORS[0] = 3
    assert p.local() == 3
    assert project.ran() == ["scaled", "scaled"]
    assert reasons(p, "scaled") == ["code changed: globals_.FACTORS"]


def test_a_step_that_changes_a_global_that_another_reads_is_told_of(project: Project) -> None:
    module = project.module(
        "mutating",
        """
        from prefect_mlpipe import pipeline, step
        SEEN = []

        @step
        def note(x: int) -> int:
            SEEN.append(x)
            return x

        @step
        def count(x: int) -> int:
            return len(SEEN)

        @pipeline
        def p() -> int:
            return count(note(1))
        """,
    )
    p = project.own(module.p)
    p.local()
    warnings = p.runs.last().warnings
    assert any("'count'" in text and "mutating.SEEN" in text for text in warnings)


def one_step(project: Project, **options: Any) -> Any:
    """A pipeline of one step with these options."""

    @step(**options)
    def f() -> int:
        ran("f")
        return 1

    @pipeline
    def p() -> int:
        return f()

    return project.own(p)


def test_the_version_counts(project: Project) -> None:
    one_step(project, version=None).local()
    one_step(project, version=1).local()
    p = one_step(project, version=2)
    p.local()
    assert project.ran() == ["f"] * 3
    assert reasons(p, "f") == ["version changed: 1 → 2"]


def test_what_is_declared_as_read_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("a")

    def clean(x: int) -> int:
        return x + 1

    @step(reads=[EnvVar("MLPIPE_TESTS_LANG"), File(vocabulary), clean])
    def f() -> int:
        ran("f")
        return 1

    @pipeline
    def p() -> int:
        return f()

    owned = project.own(p)
    owned.local()
    owned.local()
    assert project.ran() == ["f"]
    monkeypatch.setenv("MLPIPE_TESTS_LANG", "de")
    owned.local()
    assert reasons(owned, "f") == ["reads changed: MLPIPE_TESTS_LANG"]
    vocabulary.write_text("b")
    owned.local()
    assert reasons(owned, "f") == ["reads changed: vocab.txt"]
    assert project.ran() == ["f", "f"]


def test_two_declared_functions_of_one_name_both_count(project: Project) -> None:
    def built(first: int, second: int) -> Any:
        one = project.module("one_", f"def clean(x): return {first}")
        other = project.module("other_", f"def clean(x): return {second}")

        @step(reads=[one.clean, other.clean])
        def f() -> int:
            ran("f")
            return 1

        @pipeline
        def p() -> int:
            return f()

        return project.own(p)

    built(1, 1).local()
    built(2, 1).local()
    built(1, 2).local()
    assert project.ran() == ["f"] * 3


def test_what_is_ignored_does_not_count(project: Project) -> None:
    @step(ignore=["lock"])
    def f(x: int, lock: Any) -> int:
        ran("f")
        with lock:
            return x

    @pipeline
    def p(x: int) -> int:
        return f(x, threading.Lock())

    owned = project.own(p)
    assert [owned.local(1), owned.local(1)] == [1, 1]
    assert project.ran() == ["f"]


def test_a_record_expires(project: Project) -> None:
    @step(cache_expiration=timedelta(seconds=0))
    def f() -> int:
        ran("f")
        return 1

    @pipeline
    def p() -> int:
        return f()

    owned = project.own(p)
    owned.local()
    owned.local()
    assert project.ran() == ["f", "f"]
    assert reasons(owned, "f") == ["expired: older than 0:00:00"]


def test_refresh_runs_what_was_named_and_the_rest_is_cut_off(project: Project) -> None:
    p = project.own(digits)
    p.local()
    project.ran()
    assert p.with_options(refresh=["split"]).local() == 1.0
    assert project.ran() == ["split"]
    assert reasons(p, "split") == ["refresh asked"]
    assert p.with_options(refresh=True).local() == 1.0
    assert project.ran() == ["evaluate", "load", "split", "train"]


def test_refresh_moves_the_pointer(project: Project) -> None:
    @step
    def now() -> float:
        ran("now")
        return len(os.environ["MLPIPE_TESTS_NOW"])

    @pipeline
    def p() -> float:
        return now()

    owned = project.own(p)
    os.environ["MLPIPE_TESTS_NOW"] = "a"
    assert owned.local() == 1
    os.environ["MLPIPE_TESTS_NOW"] = "aa"
    assert owned.local() == 1
    assert owned.with_options(refresh=["now"]).local() == 2
    assert owned.local() == 2
    assert project.ran() == ["now", "now"]


def test_targets_run_with_what_they_need_and_nothing_else(project: Project) -> None:
    p = project.own(digits)
    assert p.with_options(targets=["train"]).local() is None
    assert project.ran() == ["load", "split", "train"]
    assert [step.name for step in p.runs.last()] == ["load", "split", "train"]


def test_an_uncached_step_leaves_a_record_that_nobody_finds(project: Project) -> None:
    one_step(project, cache=False).local()
    p = one_step(project, cache=False)
    p.local()
    assert project.ran() == ["f", "f"]
    key = p.runs.last()["f"].key
    assert project.store.records.read(key) is not None
    one_step(project, cache=True).local()
    assert project.ran() == ["f"]


def test_a_step_cannot_change_what_others_see(project: Project) -> None:
    @step
    def make() -> np.ndarray[Any, Any]:
        return np.zeros(2000)

    @step
    def spoil(array: np.ndarray[Any, Any], items: list[int]) -> float:
        array += 1
        items.append(1)
        return float(array.sum()) + len(items)

    @step
    def look(array: np.ndarray[Any, Any], items: list[int]) -> float:
        return float(array.sum()) + len(items)

    @pipeline
    def p(items: list[int]) -> Any:
        array = make()
        spoiled = spoil(array, items)
        mine = resolve(array)
        mine += 5
        return spoiled, look.after(spoiled)(array, items), array

    owned = project.own(p)
    given = [0]
    spoiled, looked, array = owned.local(given)
    assert (spoiled, looked, array.sum(), given) == (2002.0, 1.0, 0.0, [0])


def test_the_first_reader_gets_the_value_as_loaded(project: Project) -> None:
    @step
    def make() -> Any:
        shared = [1]
        return [shared, shared]

    @step
    def is_shared(value: Any) -> Any:
        return type(value).__name__

    @pipeline
    def p() -> Any:
        value = make()
        return is_shared(value), value

    owned = project.own(p)
    assert owned.local() == owned.local() == ("list", [[1], [1]])


@step
def large(n: int) -> np.ndarray[Any, Any]:
    ran("large")
    return np.full(5000, float(n))


@step
def total(array: np.ndarray[Any, Any], plus: float = 0) -> float:
    ran("total")
    return float(array.sum()) + plus


@pipeline
def lossy(n: int = 1, plus: float = 0) -> float:
    return total(large(n), plus)


def test_reuse_needs_the_record_only(project: Project) -> None:
    p = project.own(lossy)
    assert p.local() == 5000.0
    project.ran()
    for file in project.stored_files():
        file.unlink()
    assert p.local() == 5000.0
    assert project.ran() == []


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_lost_value_is_made_again_when_a_step_reads_it(project: Project, damage: str) -> None:
    p = project.own(lossy)
    p.local()
    project.ran()
    spoil(project, damage)
    assert p.local(plus=1) == 5001.0
    assert project.ran() == ["large", "total"]
    assert reasons(p, "large") == [f"value {damage}"]
    assert reasons(p, "total") == ["parameter 'plus' changed: 0.0 → 1.0"]
    assert [step.state for step in p.runs.last()] == ["ran", "ran"]


def spoil(project: Project, damage: str) -> None:
    for file in project.stored_files():
        if damage == "missing":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.chmod(0o644)
            file.write_bytes(content)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_lost_value_is_made_again_when_the_body_resolves_it(
    project: Project, damage: str
) -> None:
    @pipeline
    def p() -> float:
        return float(resolve(large(2)).sum())

    owned = project.own(p)
    owned.local()
    project.ran()
    spoil(project, damage)
    assert owned.local() == 10000.0
    assert project.ran() == ["large"]


def test_a_lost_value_is_made_again_when_the_caller_gets_it(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return {"a": large(1)}

    owned = project.own(p)
    owned.local()
    project.ran()
    spoil(project, "missing")
    assert owned.local()["a"].sum() == 5000.0
    assert project.ran() == ["large"]


def test_steps_above_are_run_again_if_their_values_are_lost_too(project: Project) -> None:
    @step
    def scale(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        ran("scale")
        return array * 2

    @pipeline
    def p(plus: float = 0) -> float:
        return total(scale(large(1)), plus)

    owned = project.own(p)
    owned.local()
    project.ran()
    spoil(project, "missing")
    assert owned.local(plus=1) == 10001.0
    assert project.ran() == ["large", "scale", "total"]


def test_a_lost_record_is_a_reason(project: Project) -> None:
    p = project.own(lossy)
    p.local()
    project.ran()
    key = p.runs.last()["total"].key
    (project.folder / "store" / "records" / key[:2] / key).unlink()
    assert p.local() == 5000.0
    assert project.ran() == ["total"]
    assert reasons(p, "total") == ["value missing: its record"]


def test_a_torn_record_is_not_believed(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    p = project.own(lossy)
    p.local()
    project.ran()
    key = p.runs.last()["total"].key
    record = project.folder / "store" / "records" / key[:2] / key
    record.chmod(0o644)
    record.write_bytes(record.read_bytes()[:-20])
    assert p.local() == 5000.0
    assert project.ran() == ["total"]
    assert "damaged" in caplog.text


def test_secrets_are_left_out_of_the_key_and_never_shown(project: Project) -> None:
    @step
    def fetch(url: str, token: SecretStr) -> str:
        ran("fetch")
        return url

    @pipeline
    def p(token: SecretStr) -> str:
        return fetch("x", token)

    owned = project.own(p)
    owned.local(SecretStr("hunter2"))
    owned.local(SecretStr("hunter3"))
    assert project.ran() == ["fetch"]
    run = owned.runs.last()
    record = project.store.records.read(run["fetch"].key)
    assert record is not None
    assert record.manifest["shown"]["token"] == "***"
    texts = [path.read_bytes() for path in project.folder.rglob("*") if path.is_file()]
    assert not any(b"hunter" in text for text in texts)


def test_reasons_compare_with_the_same_node_of_the_last_run(project: Project) -> None:
    @pipeline
    def p(a: int, b: int) -> Any:
        return load(a), load(b)

    owned = project.own(p)
    owned.local(1, 2)
    owned.local(1, 3)
    assert reasons(owned, "load#2") == ["parameter 'n' changed: 2 → 3"]


def test_a_new_node_compares_with_the_latest_of_its_function(project: Project) -> None:
    @pipeline
    def p() -> Any:
        return load(1)

    @pipeline
    def q() -> Any:
        return load(2)

    project.own(p).local()
    owned = project.own(q)
    owned.local()
    assert reasons(owned, "load") == ["parameter 'n' changed: 1 → 2"]


def test_a_store_that_cannot_be_written_is_one_clear_error_before_anything_runs(
    project: Project,
) -> None:
    blocked = project.folder / "file"
    blocked.write_text("in the way")
    p = digits.with_options(store=str(blocked / "store"))
    with pytest.raises(StoreUnavailable) as raised:
        p.local()
    assert str(blocked) in str(raised.value)
    assert raised.value.advice
    assert project.ran() == []


def test_independent_steps_run_at_the_same_time(project: Project) -> None:
    barrier = threading.Barrier(2, timeout=20)

    @step(cache=False)
    def meet(name: str) -> str:
        barrier.wait()
        return name

    @pipeline
    def p() -> Any:
        return meet("a"), meet("b")

    assert project.own(p).local() == ("a", "b")


def test_thousands_of_nodes_in_a_chain_and_side_by_side(project: Project) -> None:
    @step
    def add(x: int, n: int = 1) -> int:
        return x + n

    @step
    def collect(items: list[int]) -> int:
        return sum(items)

    @pipeline
    def p() -> Any:
        x = 0
        for _ in range(1500):
            x = add(x)
        return x, collect([add(0, n) for n in range(1500)])

    owned = project.own(p)
    expected = (1500, sum(range(1500)))
    assert owned.local() == expected
    assert owned.local() == expected
    assert owned.plan().complete
    assert {one.action for one in owned.plan()} == {"reuse"}


PACKAGE = Path(prefect_mlpipe.__file__).parent.parent
SCRIPT = """
    import sys
    from prefect_mlpipe import pipeline, step
    sys.path.insert(0, {folder!r})

    CONSTANT = {constant}

    @step
    def one() -> int:
        open({log!r}, "a").write("one ")
        return CONSTANT

    @step
    def two(x: int) -> int:
        open({log!r}, "a").write("two ")
        return x * 2

    @pipeline(store={store!r})
    def p() -> int:
        return two(one())

    if __name__ == "__main__":
        print(p.local())
"""


def test_a_script_and_an_importer_in_other_processes_share_one_store(tmp_path: Path) -> None:
    log = tmp_path / "log"
    texts = {"folder": str(tmp_path), "log": str(log), "store": str(tmp_path / "store")}

    def run(constant: int, *arguments: str) -> tuple[str, str]:
        source = dedent(SCRIPT).format(constant=constant, **texts)
        (tmp_path / "script.py").write_text(source)
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        written = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return done.stdout.strip(), written

    assert run(1, "script.py") == ("2", "one two ")
    assert run(1, "-c", "import script; print(script.p.local())") == ("2", "")
