"""Pictures hold what the study holds, and are the same every time."""

import dataclasses
import warnings

import matplotlib
import pytest

from benchmark.core import Metric
from benchmark.errors import SuperbError
from benchmark.scoring.statistics import Difference
from leaderboard.compare.difference import Pair
from leaderboard.compare.layers import LayerRow, LayerStudy, LayerTable
from leaderboard.read.board import Table
from leaderboard.show.plots import draw, draw_differences, draw_layers


def table(task="ks", lower=False):
    metric = Metric("wer", "lower") if lower else Metric("accuracy", "higher")
    return Table(
        downstream=task, base=task, labels="", train_s=None, title="", version=1, needs=(),
        metrics=(metric,),
        corpus="mini", corpus_sha256="c0" * 32, audio_sha256="",
        corpus_note="", skipped=(), channel="",
        protocol="mini", protocol_version="1", protocol_sha256="", engine="", layers=(), rows=(),
    )  # fmt: skip


def row(name, value=2.0, p_value=0.2, **changes):
    found = Difference(value, value - 3, value + 3, 0.95, 10, 100, standard_error=1.4, degrees=9)
    made = LayerRow(
        upstream=name, last=50.0, weighted_sum=50.0 + value,
        pair=Pair("accuracy", found, "McNemar", 0.2, False), p_value=p_value, why_not="",
        weights=(0.1, 0.2, 0.7), norms=(3.0, 20.0, 10.0), scores=(40.0, 60.0, 50.0), best=1,
        weight_correlation=0.5, product_correlation=-0.5,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def texts(figure):
    found = [
        text.get_text()
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_visible() and text.get_text()
    ]
    assert found
    return found


def test_differences_show_every_pair_and_which_are_clear():
    unpaired = row("cpc", pair=None, p_value=None)
    figure = draw_differences(
        LayerTable(table(), (row("hubert", 4.0, 0.001), row("apc", -1.0, 1.0), unpaired))
    )
    axes = figure.axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [-1, 4]  # from below, so hubert is on top
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [True, False]
    spans = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert {(-4.0, 2.0), (1.0, 7.0)} <= set(spans)
    found = texts(figure)
    assert {"hubert", "apc", "+4.0 [+1.0, +7.0]", "−1.0 [−4.0, +2.0]"} <= set(found)
    assert "cpc" not in found


@pytest.mark.parametrize(("lower", "left"), [(True, "weighted sum"), (False, "last layer")])
def test_differences_say_which_side_is_better(lower, left):
    found = texts(draw_differences(LayerTable(table(lower=lower), (row("hubert"),))))
    assert f"← {left} better" in found


@pytest.mark.parametrize("lower", [True, False])
def test_strips_show_numbers_and_the_better_layer_darker(lower):
    figure = draw_layers(LayerTable(table(lower=lower), (row("hubert"),)))
    found = texts(figure)
    # Norms, weights, their product as shares of 0.3 + 4 + 7, scores.
    for text in ("3.0", "20", "70", "35", "62", "40.0", "60.0", "ρ +0.50", "ρ −0.50"):
        assert text in found
    cells = figure.axes[0].patches
    assert len(cells) == 12
    brightness = [sum(cell.get_facecolor()[:3]) for cell in cells[9:]]
    order = sorted(range(3), key=brightness.__getitem__)
    assert order == ([0, 2, 1] if lower else [1, 2, 0])
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["60.0"]


def test_strips_without_single_layers_or_norms_have_fewer_lines():
    bare = row("apc", scores=(None, None, 50.0), best=None, weight_correlation=None,
               product_correlation=None)  # fmt: skip
    figure = draw_layers(LayerTable(table(), (bare, row("cpc", norms=()))))
    assert [len(axes.patches) for axes in figure.axes] == [9, 6]
    none = dataclasses.replace(bare, weights=())
    assert draw_layers(LayerTable(table(), (none,))) is None
    assert draw_differences(LayerTable(table(), (row("apc", pair=None),))) is None


def test_the_same_study_gives_the_same_bytes(tmp_path):
    study = LayerStudy((LayerTable(table(), (row("hubert"), row("apc"))),), 2, ())
    first = [path.read_bytes() for path in draw(study, tmp_path / "one")]
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "text.usetex": False}):
        second = [path.read_bytes() for path in draw(study, tmp_path / "two")]
    assert first == second
    assert all(data.startswith(b"\x89PNG") for data in first)


def test_names_of_every_kind_and_equal_values(tmp_path):
    odd = row("a/long-name_$x^$ with \x1b[31m and more than fits in one line of a picture", 0.0,
              weights=(1 / 3,) * 3, norms=(0.0,) * 3, scores=(50.0,) * 3)  # fmt: skip
    entry = LayerTable(table("ks"), (odd,))
    study = LayerStudy((entry, entry, LayerTable(table("a/b"), (odd,))), 3, ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw(study, tmp_path)
    assert [path.name for path in paths] == [
        "ks-differences.png", "ks-layers.png", "ks-2-differences.png", "ks-2-layers.png",
        "a%2Fb-differences.png", "a%2Fb-layers.png",
    ]  # fmt: skip


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    study = LayerStudy((LayerTable(table(), (row("hubert"),)),), 1, ())
    with pytest.raises(SuperbError, match=r"file.*cannot be written.*--output"):
        draw(study, tmp_path / "file")
