"""What `prefect.yaml` deploys: read digits, train on them, and read with what was trained.

Each scan is a line of numbers: the ink of 64 pixels and, in training data, the digit meant.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_score

from prefect_mlpipe import File, Folder, log_metrics, pipeline, step

SCANS = File(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))


class Trained(NamedTuple):
    """Each field is a value of its own: who takes the model does not depend on the accuracy."""

    model: ExtraTreesClassifier
    accuracy: float


@step
def load(csv: File) -> pd.DataFrame:
    """Read the scans."""
    return pd.read_csv(csv, header=None)


@step
def load_more(folder: Folder) -> pd.DataFrame:
    """Read the scans that came in later."""
    tables = [pd.read_csv(path, header=None) for path in sorted(Path(folder).glob("*.csv"))]
    return pd.concat(tables) if tables else pd.DataFrame()


@step
def train(known: pd.DataFrame, more: pd.DataFrame, trees: int) -> Trained:
    """Fit a forest to all scans."""
    table = pd.concat([known, more])
    pixels, digit = table.iloc[:, :64], table.iloc[:, 64]
    model = ExtraTreesClassifier(n_estimators=trees, random_state=0)
    accuracy = float(cross_val_score(model, pixels, digit, cv=3).mean())
    log_metrics(accuracy=accuracy, scans=len(table))
    return Trained(model.fit(pixels, digit), accuracy)


@step
def read(model: ExtraTreesClassifier, csv: File) -> list[int]:
    """Say which digits the scans show."""
    table = pd.read_csv(csv, header=None)
    return [int(digit) for digit in model.predict(table.iloc[:, :64])]


@pipeline
def retrain(csv: File = SCANS, more: Folder | None = None, trees: int = 50) -> Trained:
    """Train on all scans there are.

    Args:
        csv: the scans that have been there from the beginning.
        more: a folder with further ones.
        trees: how many trees the forest has.
    """
    return train(load(csv), load_more(more) if more else pd.DataFrame(), trees)


@pipeline
def score(model: ExtraTreesClassifier, csv: File = SCANS) -> list[int]:
    """Read scans with a model.

    Args:
        model: what `retrain` has trained.
        csv: the scans to read.
    """
    return read(model, csv)
