import dataclasses
import io

from rich.console import Console
from typer.testing import CliRunner

from benchmark.core import Record
from benchmark.scoring.results import write_result
from benchmark.scoring.statistics import Difference
from leaderboard.compare.difference import Pair
from leaderboard.compare.layers import LayerRow, LayerStudy, LayerTable
from leaderboard.read.collect import arrange
from leaderboard.show.layers import show_layers
from superb.cli import app


def row(name, **changes):
    found = Difference(4.0, 1.0, 7.0, 0.95, 10, 100, standard_error=1.4, degrees=9)
    made = LayerRow(
        upstream=name, last=50.0, weighted_sum=54.0,
        pair=Pair("accuracy", found, "McNemar", 0.2, False), p_value=0.001,
        why_not="", weights=(0.1, 0.2, 0.7), norms=(3.0, 20.0, 10.0),
        scores=(40.0, 60.0, 50.0), best=1, weight_correlation=0.5, product_correlation=-0.5,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def shown(result, *rows):
    (table,) = arrange([result("hubert", "ks", "last", 50.0)]).tables
    text = io.StringIO()
    study = LayerStudy((LayerTable(table, rows),), len(rows), ("a note",))
    show_layers(study, Console(file=text, width=120, emoji=False))
    return text.getvalue()


def test_a_row_says_what_the_other_layers_add(result):
    text = shown(result, row("hubert"))
    line = next(line for line in text.splitlines() if line.strip().startswith("hubert"))
    for part in ("50.0", "54.0", "+4.0 [+1.0, +7.0]", "0.001", "1: 60.0", "+0.50", "-0.50"):
        assert part in line
    assert "best on valid" in text
    assert "note: a note" in text


def test_what_is_missing_is_said(result):
    bare = {"pair": None, "p_value": None, "best": None, "weight_correlation": None}
    one = row("fbank", scores=(50.0,), why_not="fbank has one layer only.", **bare)
    lost = row("apc", why_not="apc failed.", **bare)
    text = shown(result, one, lost)
    assert "same: one layer" in text
    assert "fbank has one layer only." not in text  # its row says so
    assert "apc failed." in text
    assert "add --layers each" in text


def test_the_command_draws_where_told(tmp_path, result):
    for layer, right in (("last", 20), ("weighted-sum", 30)):
        made = result("hubert", "ks", layer, 2.5 * right, seeds=(0,))
        made = dataclasses.replace(made, layer_weights=[0.1, 0.9], layer_norms=[1.0, 2.0])
        rows = [
            Record(
                f"u{place}", (f"s{place % 8}",), "on", "on", {"accuracy": (int(place < right), 1)}
            )
            for place in range(40)
        ]
        write_result(tmp_path / "results", made, {0: rows})
    folder, pictures = tmp_path / "results", tmp_path / "pictures"
    printed = CliRunner().invoke(app, ["layers", str(folder), "-d", "ks", "-o", str(pictures)])
    assert printed.exit_code == 0, printed.exception
    assert "+25.0" in printed.stdout
    assert sorted(path.name for path in pictures.iterdir()) == [
        "ks-differences.png", "ks-layers.png",
    ]  # fmt: skip
