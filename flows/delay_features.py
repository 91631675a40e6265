"""What is known about a flight before it leaves, in numbers. Plain functions, no pipeline."""

from __future__ import annotations

import pandas as pd

LATE_MINUTES = 15  # from here on the US Department of Transportation counts a flight as late
FREEZING_F = 32.0
SATURDAY = 5
MEASURED = ["temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def is_late(arrival_delay: pd.Series[float]) -> pd.Series[bool]:
    """Whether a flight counts as late."""
    return arrival_delay >= LATE_MINUTES


def calendar(flights: pd.DataFrame) -> pd.DataFrame:
    """Weekday and weekend."""
    date = pd.to_datetime(flights[["year", "month", "day"]]).dt
    return pd.DataFrame({"weekday": date.day_of_week, "weekend": date.day_of_week >= SATURDAY})


def hourly(weather: pd.DataFrame) -> pd.DataFrame:
    """One row for each airport and hour; `icy` where the wings had to be de-iced."""
    table = weather[["origin", "time_hour", *MEASURED]].drop_duplicates(["origin", "time_hour"])
    icy = (table["temp"] <= FREEZING_F) & (table["precip"] > 0)
    return table.assign(icy=icy.astype(float))


def age(built: pd.Series[float], flown: pd.Series[int]) -> pd.Series[float]:
    """How many years a plane had been in the air."""
    return (flown - built).clip(lower=0)
