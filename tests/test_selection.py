"""Which nodes a name means."""

from __future__ import annotations

import pytest

from prefect_mlpipe.engine.selection import Selection, names_of


@pytest.mark.parametrize(
    ("node", "names"),
    [
        ("clean", {"clean"}),
        ("clean#2", {"clean", "clean#2"}),
        ("clean#2[7]", {"clean", "clean#2"}),
        ("prep/clean", {"clean", "prep", "prep/clean"}),
        (
            "prep#2/clean#3",
            {*("prep#2/clean#3", "prep/clean", "clean#3", "clean", "prep#2", "prep")},
        ),
        ("a/b/c", {"a/b/c", "c", "a/b", "a"}),
    ],
)
def test_the_names_that_mean_a_node(node: str, names: set[str]) -> None:
    assert names <= names_of(node)
    assert not {"x", "cle", "prep/clea"} & names_of(node)


def test_refresh() -> None:
    assert Selection(True).is_refreshed("anything")
    assert not Selection(False).is_refreshed("anything")
    chosen = Selection(["clean", "split#2", "prep"])
    for name in ("clean", "clean#2", "clean[3]", "split#2", "prep/x", "prep#2/x"):
        assert chosen.is_refreshed(name)
    for name in ("split", "split#3", "cleaner", "x/split"):
        assert not chosen.is_refreshed(name)


def test_targets() -> None:
    assert Selection().is_target("anything")
    chosen = Selection((), ["clean#2"])
    assert chosen.is_target("clean#2")
    assert not chosen.is_target("clean")
