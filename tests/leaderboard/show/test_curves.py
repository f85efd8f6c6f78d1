"""Curves of studies: where names stand, what is joined, and pictures that hold all of it."""

import dataclasses
import itertools
import warnings

import matplotlib
import numpy as np
import pytest
from scipy.optimize import minimize
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from benchmark.scoring.results import write_result
from leaderboard.compare.variants import study_variants
from leaderboard.show.curve_plots import draw_studies, draw_study
from leaderboard.show.curves import chart_of, spread, stagger
from superb.cli import app
from tests.leaderboard.conftest import build, records, variant
from tests.leaderboard.show.test_plots import texts

HEADS = ("asr", "asr-attention", "asr-gmm-hmm")
LABELS = {"2min": 120.0, "10min": 600.0}


@pytest.fixture(autouse=True)
def _as_written():
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


def write(root, *results):
    for result in results:
        write_result(root, result, records(result))


@pytest.fixture
def folder(tmp_path):
    """Three encoders by three heads, of which one trains nothing, and on three budgets."""
    root = tmp_path / "results"
    for name, score in {"hubert": 10.0, "apc": 20.0, "$x^$ fbank": 40.0}.items():
        for place, head in enumerate(HEADS):
            layer = "best" if head == "asr-gmm-hmm" else "weighted-sum"
            made = variant(build(name, "asr", layer, score + 5 * place, half=1.0), head)
            if layer == "best":
                made = dataclasses.replace(made, learning_rate=0.0)
            if (name, head) != ("apc", "asr-attention"):
                write(root, made)
        for text, seconds in LABELS.items():
            made = build(name, "asr", "weighted-sum", score + 1200 / seconds, half=1.0)
            write(root, variant(made, f"asr-{text}", text, seconds))
    return root


@pytest.fixture
def heads(folder):
    return study_variants(folder, "heads")[0]


@pytest.fixture
def labels(folder):
    return study_variants(folder, "labels")[0]


def test_heads_stand_evenly_and_a_gap_is_not_joined(heads):
    chart = chart_of(heads)
    assert chart.names == HEADS
    assert chart.places == (0, 0.5, 1)
    runs = {curve.label: [[dot.column for dot in run] for run in curve.runs]
            for curve in chart.curves}  # fmt: skip
    assert runs == {"$x^$ fbank": [[0, 1, 2]], "apc": [[0], [2]], "hubert": [[0, 1, 2]]}
    dot = chart.curves[2].dots[0]
    assert (dot.value, dot.low, dot.high, dot.text) == (10, 9, 11, "10.0 [9.0, 11.0]")
    assert any(note.startswith("asr-gmm-hmm: no head is trained") for note in chart.notes)


def test_budgets_stand_by_the_logarithm_of_their_length(labels):
    chart = chart_of(labels)
    assert chart.names == ("2min", "10min", "all: 39 min")
    assert chart.places == pytest.approx((0, np.log(5) / np.log(19.5), 1))
    assert chart.taus[0].value == 1
    assert [curve.dots[-1].value for curve in chart.curves] == [40, 20, 10]


def test_without_intervals_there_are_no_whiskers(tmp_path):
    flat = build("hubert", "asr", "weighted-sum", 12.0, half=0.0)
    write(tmp_path, flat, variant(flat, "asr-hmm"))
    (study,) = study_variants(tmp_path, "heads")
    chart = chart_of(study)
    assert chart.notes == ("weighted-sum; no score has an interval",)
    assert {(dot.low, dot.high) for dot in chart.curves[0].dots} == {(None, None)}
    spans = [tuple(line.get_ydata()) for line in draw_study(study).axes[0].lines]
    assert spans == [(12, 12), (12, 12), (12,)]  # curve, leader to the name, its mark


def test_budgets_of_unknown_length_are_not_drawn(labels):
    silent = dataclasses.replace(labels.tables[2], train_s=None)
    study = dataclasses.replace(labels, tables=(*labels.tables[:2], silent))
    chart = chart_of(study)
    assert chart.names == ("2min", "10min")
    assert "all is not drawn: no result says how long train is" in chart.notes
    one = dataclasses.replace(labels, tables=labels.tables[:1], columns=("all",))
    assert chart_of(one) is None
    assert draw_study(one) is None


def test_errors_of_many_sizes_stand_by_their_logarithm(heads):
    chart = chart_of(heads)
    assert chart.ends == (9, 51)
    assert chart.logarithmic
    assert chart.ticks == [10, 15, 20, 30, 50]
    assert draw_study(heads).axes[0].get_yscale() == "log"
    alike = chart_of(dataclasses.replace(heads, rows=heads.rows[:2]))
    assert alike.ends == (19, 51)
    assert not alike.logarithmic


def test_names_keep_their_distance_and_move_as_little_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted, sizes = rng.uniform(0, 10, 5), rng.uniform(0.5, 2.0, 5)
        found = np.array(spread(list(wanted), list(sizes), -100.0, 100.0))
        order = wanted.argsort()
        gaps = [(sizes[a] + sizes[b]) / 2 for a, b in itertools.pairwise(order)]
        assert (np.diff(found[order]) >= np.array(gaps) - 1e-9).all()
        apart = [
            {"type": "ineq", "fun": lambda x, a=a, b=b, gap=gap: x[b] - x[a] - gap}
            for (a, b), gap in zip(itertools.pairwise(order), gaps, strict=True)
        ]
        best = minimize(lambda x, w=wanted: ((x - w) ** 2).sum(), found, constraints=apart)
        assert ((found - wanted) ** 2).sum() == pytest.approx(best.fun, abs=1e-4)
    assert spread([9.9, 9.9], [2.0, 2.0], 0.0, 10.0) == [7.0, 9.0]
    assert spread([0.0, 0.1], [2.0, 2.0], 0.0, 10.0) == [1.0, 3.0]


def test_names_below_share_a_line_only_where_they_do_not_touch():
    assert stagger([0.0, 1.0, 2.0, 3.0], [1.5, 1.5, 1.5, 1.5]) == [0, 1, 0, 1]
    assert stagger([0.0, 1.0], [1.0, 1.0]) == [0, 0]


def test_pictures_hold_names_scores_intervals_and_agreement(heads, labels):
    figure = draw_study(heads)
    found = texts(figure)
    assert {"asr on mini by head", "hubert", "apc", "$x^$ fbank"} <= set(found)
    assert {name.strip() for name in found} >= set(HEADS)
    assert any("asr-gmm-hmm: no head is trained" in text for text in found)
    spans = [tuple(line.get_ydata()) for line in figure.axes[0].lines]
    assert {(9.0, 11.0), (44.0, 46.0)} <= set(spans)
    assert (10.0, 15.0, 20.0) in spans
    assert (20.0, 30.0) not in spans
    found = texts(draw_study(labels))
    assert sum(text.startswith("τ +1.00") for text in found) == 2


def test_no_text_is_cut_and_no_name_lies_on_another(tmp_path):
    for place in range(30):
        name = f"an-encoder-of-number-{place} with a name of two lines"
        made = build(name, "asr", "weighted-sum", 20 + place / 10, half=1.0)
        write(tmp_path, *(variant(made, f"asr-of-a-long-name-{head}") for head in range(7)))
    figure = draw_study(study_variants(tmp_path, "heads")[0])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if "\n" in text.get_text()]
    assert len(boxes) == 30
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    ticks = [tick.get_window_extent() for tick in figure.axes[0].get_xticklabels()]
    for box in (*boxes, *ticks, *(text.get_window_extent() for text in figure.texts)):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_the_commands_draw_and_the_same_results_give_the_same_bytes(folder, tmp_path):
    for by in ("heads", "labels"):
        done = CliRunner().invoke(app, [by, str(folder), "-o", str(tmp_path / "pictures")])
        assert done.exit_code == 0
        path = tmp_path / "pictures" / f"asr-{by}.png"
        assert str(path) in done.stdout.replace("\n", "")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (again,) = draw_studies(study_variants(folder, by), tmp_path / "again")
        assert again.read_bytes() == path.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(SuperbError, match=r"file.*cannot be written.*--output"):
        draw_studies(study_variants(folder, "heads"), tmp_path / "file")
