import re

import pytest

from leaderboard.show.report.charts import bars, interval_bar


def test_drawings_keep_proportions():
    text = bars([1.0, 2.0], ["a", "b"], "title", "x", "y")
    one, two = (float(height) for height in re.findall(r'height="([\d.]+)" class="bar"', text))
    assert two == pytest.approx(2 * one)
    score = {"value": 5.0, "low": 4.0, "high": 6.0, "clusters": 4}
    bar = interval_bar(score, "%", (0.0, 10.0))
    assert 'x1="50" x2="50"' in bar
    assert 'class="reach"' in bar
    assert 'class="reach"' not in interval_bar({**score, "clusters": 3}, "%", (0.0, 10.0))
