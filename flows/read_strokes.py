"""Read handwritten digits by the directions of their strokes; fitted on a GPU where there is one.

    cd flows && python read_strokes.py                                                 # on threads
    PREFECT_MLPIPE_COMPUTE='{"gpu": {"kind": "cuda"}}' python flows/read_strokes.py    # on a GPU

The steps say what they need and the settings where that is: `flows/pyproject.toml` lets what asks
for a GPU run on threads. The strokes are found sheet by sheet, in a mapped step.
"""

from __future__ import annotations

from importlib.metadata import distribution
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefect_mlpipe import File, Resources, log_metrics, pipeline, step

SCANS = File(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
SIDE = 8  # pixels
DIRECTIONS = 8

Array = NDArray[Any]


class Scans(NamedTuple):
    """Sheets of scans, and the digits that were meant."""

    sheets: list[Array]
    digits: Array


class Split(NamedTuple):
    """What is learned from, and what is judged by."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]


@step
def scan(csv: File, sheet: int = 100) -> Scans:
    """Read the scans, so many to a sheet."""
    table = np.loadtxt(csv, delimiter=",", dtype=np.float32)
    images = table[:, :-1].reshape(-1, SIDE, SIDE)
    cuts = range(sheet, len(images), sheet)
    return Scans(np.split(images, cuts), table[:, -1].astype(np.int64))


@step
def strokes(images: Array) -> Array:
    """Describe each scan: how strongly ink begins or ends in each direction, in cells of 2 x 2."""
    down, right = np.gradient(images, axis=(1, 2))
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    nearest = np.rint(angle / np.pi * DIRECTIONS) % DIRECTIONS
    each = strength[..., None] * (nearest[..., None] == np.arange(DIRECTIONS))
    cells = each.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2, DIRECTIONS).sum(axis=(2, 4))
    flat: Array = cells.reshape(len(images), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat


@step
def split(described: list[Array], digits: Array, test_size: float = 0.25, seed: int = 0) -> Split:
    """Lay some scans aside."""
    features = np.concatenate(described)
    order = np.random.default_rng(seed).permutation(len(features))
    test, train = np.split(order, [int(len(order) * test_size)])
    return Split((features[train], digits[train]), (features[test], digits[test]))


def arrays() -> Any:
    """Return CuPy where there is a GPU, NumPy elsewhere: they have the same functions."""
    if find_spec("cupy") is None:
        return np
    import cupy

    return cupy if cupy.cuda.is_available() else np


@step(compute="gpu", resources=Resources(gpus=1))
def fit(known: tuple[Array, Array], rounds: int, rate: float = 40.0) -> Array:
    """Fit a logistic regression by gradient descent; return its weights, in host memory."""
    xp = arrays()
    features, digits = map(xp.asarray, known)
    meant = xp.eye(10, dtype=features.dtype)[digits]
    weights = xp.zeros((features.shape[1], 10), dtype=features.dtype)
    for _ in range(rounds):
        scores = xp.exp(features @ weights)
        chances = scores / scores.sum(axis=1, keepdims=True)
        weights += rate / len(features) * features.T @ (meant - chances)
    return np.asarray(weights if xp is np else xp.asnumpy(weights))


@step
def judge(weights: Array, unseen: tuple[Array, Array]) -> float:
    """Return the share of unseen scans that are read right."""
    features, digits = unseen
    right = float(((features @ weights).argmax(axis=1) == digits).mean())
    log_metrics(accuracy=right, scans=len(digits))
    return right


@pipeline
def read_strokes(csv: File = SCANS, rounds: int = 100) -> float:
    """Describe, fit and judge."""
    scans = scan(csv)
    parts = split(strokes.map(scans.sheets), scans.digits)
    return judge(fit(parts.train, rounds), parts.test)


if __name__ == "__main__":
    print(f"{read_strokes():.1%} of the unseen digits were read right")
