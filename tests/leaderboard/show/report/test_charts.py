import re

import pytest

from leaderboard.show.report.charts import bars, interval_bar


def test_drawings_keep_proportions():
    text = bars([1.0, 2.0], ["a", "b"], "title", "x", "y")
    one, two = (float(height) for height in re.findall(r'height="([\d.]+)" class="bar"', text))
    assert two == pytest.approx(2 * one)
    assert 'x1="50" x2="50"' in interval_bar({"value": 5.0, "low": 4.0, "high": 6.0}, (0.0, 10.0))
