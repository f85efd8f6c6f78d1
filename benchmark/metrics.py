"""From records to a value: the statistics that a metric may name.

No torch and no numpy, so that whoever reads result files can tell what their columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.core import Metric, Record
from benchmark.errors import unknown

Rows = Sequence[tuple[float, ...]]


@dataclass(frozen=True)
class Statistic:
    """A number that the values of records come to.

    Attributes:
        fields: what a record's value holds, in order; the columns of a table of records end so.
        value: the number, from the values of all records.
    """

    fields: tuple[str, ...]
    value: Callable[[Rows], float]


def _ratio(rows: Rows) -> float:
    return sum(row[0] for row in rows) / sum(row[1] for row in rows)


STATISTICS: Final[Mapping[str, Statistic]] = {
    "ratio": Statistic(("numerator", "denominator"), _ratio),
}


def find_statistic(name: str) -> Statistic:
    """A statistic by name.

    Raises:
        SuperbError: there is none of that name.
    """
    if name not in STATISTICS:
        raise unknown("statistic", name, STATISTICS)
    return STATISTICS[name]


def score(records: Sequence[Record], metric: Metric) -> float:
    """A metric over records, in its unit."""
    rows = [record.values[metric.name] for record in records]
    if (
        metric.statistic == "ratio" and metric.unit == "%"
    ):  # of whole numbers, exact to the last bit
        return 100.0 * sum(row[0] for row in rows) / sum(row[1] for row in rows)
    value = find_statistic(metric.statistic).value(rows)
    return 100.0 * value if metric.unit == "%" else value
