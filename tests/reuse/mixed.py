"""A project whose steps return every kind of value that is stored in a way of its own, and what is
asked of its store after something went wrong."""

from __future__ import annotations

from pathlib import Path

from prefect_mlpipe.core.store import Store
from tests.reuse.lab import Lab, Outcome

# In the record, in an array's file, a table's, an object's, as a file, as a folder.
MIXED = """
from pathlib import Path
import numpy as np
import pandas as pd
from prefect_mlpipe import output_folder

@step
def text(seed: int) -> str:
    ran("text")
    return f"{seed}, " * 1000

@step
def array(seed: int, size: int) -> np.ndarray:
    ran("array")
    return np.random.default_rng(seed).random(size)

@step
def table(values: np.ndarray) -> pd.DataFrame:
    ran("table")
    return pd.DataFrame({"a": values, "b": ["owl"] * len(values)})

@step
def arrays(values: np.ndarray) -> dict:
    ran("arrays")
    return {"half": values[::2].copy(), "names": ["owl"] * 2000}

@step
def file(words: str) -> File:
    ran("file")
    place = Path(output_folder()) / "words.txt"
    place.write_text(words * 3)
    return File(place)

@step
def folder(values: np.ndarray) -> Folder:
    ran("folder")
    place = Path(output_folder())
    (place / "sub").mkdir()
    for n in range(3):
        (place / f"sub/{n}.bin").write_bytes(values[n * 500:].tobytes())
    return Folder(place)

@step
def total(table: pd.DataFrame, arrays: dict, words: File, parts: Folder) -> float:
    ran("total")
    sizes = [len(p.read_bytes()) for p in sorted((Path(parts) / "sub").iterdir())]
    numbers = float(table["a"].sum() + arrays["half"].sum())
    return numbers + len(Path(words).read_text()) + sum(sizes)

@pipeline
def main(seed: int = 0, size: int = 2000) -> float:
    values = array(seed, size)
    return total(table(values), arrays(values), file(text(seed)), folder(values))
"""


def recorded(lab: Lab) -> set[str]:
    """The keys of which there is a record that can be believed, and whose values are sound."""
    store = Store(lab.store, cache_folder=str(lab.place / "looking"))
    found = set()
    for path in (Path(lab.store) / "records").rglob("*"):
        record = store.records.read(path.name) if len(path.name) == 64 else None
        if record is not None:
            for value in record.fields.values():
                store.check(value)
            found.add(record.key)
    return found


def right_afterwards(lab: Lab, right: str, arguments: str = "") -> Outcome:
    """Run again what went wrong: it is right, and nothing that was recorded runs again."""
    done = recorded(lab)
    outcome = lab.run(arguments)
    assert (outcome.value, outcome.error) == (right, None), outcome.traceback
    keys = {name: one["key"] for name, one in outcome.steps.items()}
    assert not done & {keys[name] for name in outcome.ran}
    assert recorded(lab) >= set(keys.values())
    return outcome
