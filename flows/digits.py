"""Learn to read handwritten digits: 1,797 real ones, scanned at 8 x 8 pixels.

    python flows/digits.py

Run it twice: the second time nothing has changed, and only `publish` runs.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import NamedTuple

import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

from prefect_mlpipe import File, log_metrics, pipeline, publish, resolve, step

SCANS = File(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))


class Split(NamedTuple):
    """Each field is stored by itself: who reads `train` does not depend on `test`."""

    train: pd.DataFrame
    test: pd.DataFrame


@step
def load(csv: File) -> pd.DataFrame:
    """Read the scans: the ink of 64 pixels, and the digit that was meant."""
    pixels = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    return pd.read_csv(csv, header=None, names=[*pixels, "digit"])


@step
def split(table: pd.DataFrame, test_size: float = 0.25, seed: int = 0) -> Split:
    """Lay some scans aside, as many of each digit."""
    train, test = train_test_split(
        table, test_size=test_size, random_state=seed, stratify=table["digit"]
    )
    return Split(train, test)


@step
def train(table: pd.DataFrame, trees: int, seed: int = 0) -> ExtraTreesClassifier:
    """Fit a forest."""
    model = ExtraTreesClassifier(n_estimators=trees, random_state=seed)
    return model.fit(table.drop(columns="digit"), table["digit"])


@step
def evaluate(model: ExtraTreesClassifier, table: pd.DataFrame) -> float:
    """Return the share of unseen scans that the model reads right."""
    right = model.predict(table.drop(columns="digit")) == table["digit"]
    log_metrics(accuracy=right.mean(), scans=len(right))
    return float(right.mean())


@pipeline
def digits(csv: File = SCANS, trees: int = 200) -> float:
    """Train on the scans, and publish the model if it is good."""
    parts = split(load(csv))
    model = train(parts.train, trees)
    accuracy = evaluate(model, parts.test)
    if resolve(accuracy) > 0.95:
        publish(model, name="digits", alias="champion")
    return accuracy


if __name__ == "__main__":
    print(f"{digits():.1%} of the unseen digits were read right")
