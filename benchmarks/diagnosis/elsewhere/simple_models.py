"""What a few simple models reach on a program's rows, by which its twin is measured.

A linear model, the nearest rows and a forest of trees are fitted to the rows that the program
trains on, and judged on its validation rows; the best of them counts. Nothing is random.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.diagnosis.elsewhere.data import Rows, rows
from benchmarks.diagnosis.elsewhere.skill import skill

Arrays = tuple[np.ndarray, np.ndarray]  # of training and of validation


def simple_skill(settings: dict[str, Any]) -> float:
    """Return the best skill of the simple models on the rows of a twin with these settings."""
    return _best(settings["data"], settings["rows"])


@cache
def _best(name: str, count: int) -> float:
    return best_of(rows(name), count)


def best_of(data: Rows, count: int) -> float:
    """Return the best skill of the simple models after fitting the first rows."""
    y = data.y[:count].squeeze(-1) if data.outputs == 1 else data.y[:count]
    found = []
    for x, val_x in _forms(data, count):
        for model in models(data.task):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x, y.numpy())
            said = np.asarray(model.predict(val_x)).reshape(data.val_y.shape)
            found.append(skill(data.task, torch.as_tensor(said), data.val_y))
    return round(max(found), 4)


def models(task: str) -> list[Any]:
    """Return what is fitted."""
    if task == "numbers":
        return [Ridge(), KNeighborsRegressor(5), RandomForestRegressor(100, random_state=0)]
    linear = LogisticRegression(max_iter=1000)
    return [
        OneVsRestClassifier(linear) if task == "labels" else linear,
        KNeighborsClassifier(5),
        RandomForestClassifier(100, random_state=0),
    ]


def _forms(data: Rows, count: int) -> Iterator[Arrays]:
    """Yield flat features: standardised numbers; of tokens which stands where, and their counts."""
    x, val_x = data.x[:count].numpy(), data.val_x.numpy()
    if data.shape != "tokens":
        x, val_x = (each.reshape(len(each), -1) for each in (x, val_x))
        scaler = StandardScaler().fit(x)
        yield scaler.transform(x), scaler.transform(val_x)
        return
    symbols = np.arange(max(x.max(), val_x.max()) + 1)
    places, val_places = ((each[:, :, None] == symbols).astype(np.float32) for each in (x, val_x))
    yield places.reshape(len(x), -1), val_places.reshape(len(val_x), -1)
    yield places.sum(1), val_places.sum(1)
