"""Rows 08, 17 and 19 of the table: installed packages, twins, and files edited after the import."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.reuse.lab import Lab
from tests.reuse.rows import edited, work

CLEAN = "def clean(x): return x + 1"


def install(lab: Lab, version: str, step: int) -> None:
    """Install a distribution as pip does: its code, and what it says of itself."""
    shutil.rmtree(lab.folder / "site-packages", ignore_errors=True)
    info = f"site-packages/tallies-{version}.dist-info"
    lab.write(
        {
            "site-packages/tallies/__init__.py": f"""
                class Tally:
                    def __init__(self, start): self.start = start
                    def of(self, x): return self.start + x * {step}
                def of(x): return x * {step}
            """,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tallies\nVersion: {version}\n",
            f"{info}/RECORD": "tallies/__init__.py,,\n",
            f"{info}/INSTALLER": "pip\n",
        }
    )


INSTALLED = """
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "site-packages"))
import tallies
"""
TYPED = f"""
{INSTALLED}

@step
def work(tally: object) -> int:
    ran("work")
    return tally.of(2)

@step
def below(found: int) -> int:
    ran("below")
    return found

@pipeline
def main() -> int:
    return below(work(tallies.Tally(1)))
"""


@pytest.mark.parametrize(
    ("main", "below"),
    [(work("tallies.of(x)", INSTALLED)["main.py"], []), (TYPED, ["below"])],
    ids=["08 reached by the code", "08 reached by the type of an input only"],
)
def test_another_version_of_a_package(lab: Lab, main: str, below: list[str]) -> None:
    install(lab, "1.0", 1)
    lab.write(main)
    first = lab.run()
    assert first.value == lab.oracle()
    assert lab.run().ran == []
    install(lab, "2.0", 3)
    planned = lab.run(how="plan", plan=True)
    outcome = lab.run()
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == sorted(["work", *below])
    assert planned.plan["work"] == ("run", ["environment changed: tallies 1.0 → 2.0"])
    assert outcome.reasons("work") == planned.plan["work"][1]


def test_08_a_package_that_nothing_reaches_does_not_count(lab: Lab) -> None:
    install(lab, "1.0", 1)
    lab.write(work("x + 1", INSTALLED))
    assert lab.run().ran == ["work"]
    install(lab, "2.0", 3)
    assert lab.run().ran == []


def test_08_what_an_uninstall_left_behind_is_no_distribution(lab: Lab) -> None:
    lab.write(work("tallies.of(x)", INSTALLED))
    install(lab, "1.0", 1)
    assert lab.run().ran == ["work"]
    install(lab, "2.0", 3)
    (lab.folder / "site-packages" / "tallies-1.0.dist-info").mkdir()
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.error) == (lab.oracle(), None)
    changed = ["environment changed: tallies 1.0 → 2.0"]
    assert outcome.reasons() == outcome.plan["work"][1] == changed


def test_17_a_step_of_the_same_text_with_other_globals_is_another(lab: Lab) -> None:
    twin = work("x + K", "K = {}")["main.py"]
    head = "from log import ran\nfrom prefect_mlpipe import pipeline, step\n"
    lab.write({"a.py": head + twin.format(1), "b.py": head + twin.format(2), "main.py": ""})
    for module in ("a", "b"):
        outcome = lab.run(module=module, plan=True)
        assert outcome.value == lab.oracle(module=module)
        assert outcome.ran == ["work"]
        why = "first run" if module == "a" else "code changed: b.K"
        assert outcome.reasons() == outcome.plan["work"][1] == [why]
    for module in ("a", "b"):
        again = lab.run(module=module)
        assert (again.value, again.ran) == (lab.oracle(module=module), [])


@pytest.mark.parametrize("file", ["main.py", "helpers.py"])
def test_19_what_ran_is_recorded_when_the_file_was_edited_after_the_import(
    lab: Lab, file: str
) -> None:
    project = work("helpers.clean(x) - 0", "import helpers", helpers=CLEAN)
    new = edited(project, "main.py", "- 0", "- 7") if file == "main.py" else {file: CLEAN + " + 5"}
    lab.write(project)
    old_value = lab.oracle()
    lab.write(new)
    text = (lab.folder / file).read_text()
    lab.write(project)  # and the edit comes between the import and the run:
    edit = f"open({file!r}, 'w').write({text!r})"
    first = lab.run(setup=edit)
    assert (first.value, first.ran) == (old_value, ["work"])
    second = lab.run(plan=True)
    assert second.value == lab.oracle() != old_value
    assert second.ran == ["work"]
    changed = "code changed: main.work" if file == "main.py" else "code changed: helpers.clean"
    assert second.plan["work"] == ("run", [changed])
    assert second.reasons() == [changed]
    lab.write(project)
    assert (lab.run().value, lab.run().ran) == (old_value, []), "the old code has its record"


def test_19_a_stale_pyc_counts_as_what_it_does(lab: Lab) -> None:
    lab.write(work("helpers.clean(x)", "import helpers", helpers=CLEAN))
    helpers = lab.folder / "helpers.py"
    os.utime(helpers, (1_700_000_000, 1_700_000_000))
    compiled = "import py_compile; py_compile.compile('helpers.py', doraise=True)"
    old = lab.run(setup=compiled)
    assert old.ran == ["work"]
    helpers.write_text(CLEAN.replace("+ 1", "+ 2"))
    os.utime(helpers, (1_700_000_000, 1_700_000_000))
    stale = lab.run()
    assert (stale.value, stale.ran) == (lab.oracle(), []), "Python itself runs the old code"
    os.utime(helpers, (1_700_000_009, 1_700_000_009))
    fresh = lab.run(plan=True)
    assert fresh.value == lab.oracle() != old.value
    assert fresh.ran == ["work"]
    assert fresh.reasons() == fresh.plan["work"][1] == ["code changed: helpers.clean"]
