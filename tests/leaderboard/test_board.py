import csv
import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from benchmark.errors import SuperbError
from leaderboard.collect import arrange, collect
from leaderboard.render import escape_markdown, printable, render, show

MARKDOWN = """\
## asr version 1: wer in % ↓ (lower is better)

corpus mini (c0c0c0c0), protocol superb version 1 (abababab)  
corpus note: synthetic voices

| upstream | last ↓ | weighted-sum ↓ |
| :-- | --: | --: |
| hubert | **20.0 [18.0, 22.0]** | **12.5 [10.5, 14.5]** |
| wavlm | **23.0 [21.0, 25.0]** | **13.0 [11.0, 15.0]**¹ |
| fbank | 60.0 [58.0, 62.0] | – |
| untrained-hubert † | failed | – |

- \\[low, high\\]: 95 % interval over speakers
- Bold: best of its column, or not separated from the best (intervals overlap)
- ¹ one seed: no estimate of seed variance
- † untrained: random weights, a floor for the others
- untrained-hubert: random weights

## ks version 1: accuracy in % ↑ (higher is better)

corpus mini (c0c0c0c0), protocol superb version 1 (abababab)  
corpus note: synthetic voices

| upstream | last ↑ | weighted-sum ↑ | 3 ↑ | 11 ↑ | weighted-sum-norm ↑ |
| :-- | --: | --: | --: | --: | --: |
| hubert | 90.0 [88.0, 92.0] | – | 80.0 [78.0, 82.0]² | 85.0 [83.0, 87.0] | 95.0 [93.0, 97.0] |

- \\[low, high\\]: 95 % interval over speakers
- ² best learning rate at an edge of the grid: the score may be low
"""  # noqa: W291


@pytest.fixture
def folder(save, tmp_path):
    save("hubert", "asr", "last", 20.0)
    save("hubert", "asr", "weighted-sum", 12.5)
    save("wavlm", "asr", "last", 23.0)
    save("wavlm", "asr", "weighted-sum", 13.0, seeds=(0,))
    save("fbank", "asr", "last", 60.0)
    save("untrained-hubert", "asr", "last", None, family="untrained", note="random weights")
    save("hubert", "ks", "last", 90.0)
    save("hubert", "ks", "weighted-sum-norm", 95.0)
    save("hubert", "ks", "11", 85.0)
    save("hubert", "ks", "3", 80.0, at_edge=True)
    return tmp_path / "results"


def test_golden_markdown(folder):
    assert render(collect(folder), "markdown") == MARKDOWN


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv"])
def test_same_files_same_bytes(folder, format):
    assert render(collect(folder), format) == render(collect(folder), format)


def test_terminal(folder):
    text = render(collect(folder))
    assert re.search(r"^ hubert +20\.0 \[18\.0, 22\.0\]\* +12\.5 \[10\.5, 14\.5\] ?\*", text, re.M)
    assert "failed" in text
    assert "¹ one seed: no estimate of seed variance" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_number_is_cut_or_wrapped(folder, width):
    text = render(collect(folder), width=width)
    assert "…" not in text
    for cell in ("90.0 [88.0, 92.0]", "80.0 [78.0, 82.0]²", "95.0 [93.0, 97.0]"):
        assert cell in text


def test_bold_in_a_terminal(folder):
    stream = io.StringIO()
    show(collect(folder), Console(file=stream, force_terminal=True, width=100))
    assert re.search(r"\x1b\[1m *20\.0 \[18\.0, 22\.0\]\*\x1b\[0m", stream.getvalue())
    assert not re.search(r"\x1b\[1m *60\.0", stream.getvalue())


def test_csv(folder):
    rows = list(csv.DictReader(io.StringIO(render(collect(folder), "csv"))))
    # Five finished runs with two metrics, one failed, four with one metric.
    assert len(rows) == 5 * 2 + 1 + 4
    first = rows[0]
    assert (first["upstream"], first["layer"], first["metric"]) == ("hubert", "last", "wer")
    assert (first["value"], first["not_separated_from_best"]) == ("20.0", "True")
    assert rows[1]["metric"] == "cer"
    assert rows[1]["ranks"] == "False"
    failed = next(row for row in rows if row["status"] == "failed")
    assert (failed["metric"], failed["value"], failed["seeds"]) == ("", "", "3")
    assert (failed["upstream"], failed["untrained"]) == ("untrained-hubert", "True")


def test_unknown_format(folder):
    with pytest.raises(SuperbError, match=r"Did you mean markdown.*csv, markdown, terminal"):
        render(collect(folder), "markdwon")


def test_protocols_corpora_and_versions_never_mix(save, tmp_path):
    save("hubert", "ks", "last", 90.0)
    save("wavlm", "ks", "last", 91.0, protocol_version=2)
    save("cpc", "ks", "last", 92.0, corpus_sha256="d1" * 32)
    save("fbank", "ks", "last", 93.0, version=2)
    tables = collect(tmp_path / "results").tables
    assert [[row.upstream for row in table.rows] for table in tables] == [
        ["hubert"],
        ["wavlm"],
        ["cpc"],
        ["fbank"],
    ]
    text = render(collect(tmp_path / "results"))
    for word in ("superb version 2", "d1d1d1d1", "ks version 2"):
        assert word in text


def test_newest_wins_and_says_so(save, tmp_path):
    save("hubert", "ks", "last", 95.0, seeds=(3, 4, 5), created="2026-01-03T00:00:00+00:00")
    save("hubert", "ks", "last", 70.0, created="2026-01-02T00:00:00+00:00")
    board = collect(tmp_path / "results")
    cell = board.tables[0].rows[0].cells["last"]
    assert cell.metrics["accuracy"]["value"] == 95.0
    assert len(board.notes) == 1
    assert "ks, hubert, last" in board.notes[0]
    assert "left out for the newer" in render(board, "markdown")


def test_two_encoders_of_one_name_are_two_rows(save, tmp_path):
    save("hubert", "ks", "last", 95.0, fingerprint="aaaaaaaabbbb")
    save("hubert", "ks", "last", 70.0, fingerprint="ccccccccdddd")
    board = collect(tmp_path / "results")
    assert [row.label for row in board.tables[0].rows] == ["hubert @aaaaaaaa", "hubert @cccccccc"]
    assert not board.notes


def test_more_seeds_win_over_newer(result):
    few = result("hubert", "ks", "last", 95.0, seeds=(0,), created="2026-01-03T00:00:00+00:00")
    many = result("hubert", "ks", "last", 70.0, created="2026-01-02T00:00:00+00:00")
    for runs in ([few, many], [many, few]):
        board = arrange(runs)
        assert board.tables[0].rows[0].cells["last"].run_id == many.run_id
        assert len(board.notes) == 1
        assert f"run {few.run_id}" in board.notes[0]
        assert f"left out for that of 3 instead of 1 seeds, {many.run_id}" in board.notes[0]


def test_finished_wins_over_failed(result):
    failed = result("hubert", "ks", "last", None, created="2026-01-03T00:00:00+00:00")
    finished = result("hubert", "ks", "last", 70.0, seeds=(0,))
    board = arrange([failed, finished])
    assert board.tables[0].rows[0].cells["last"].run_id == finished.run_id
    assert f"left out for the finished {finished.run_id}" in board.notes[0]


def test_one_note_for_each_run_left_out(result):
    runs = [result("hubert", "ks", "last", 70.0, seeds=(seed,)) for seed in range(3)]
    board = arrange(runs)
    shown = board.tables[0].rows[0].cells["last"].run_id
    assert len(board.notes) == 2
    assert all(shown in note for note in board.notes)


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({}, {"precision": "bfloat16"}, ["hubert", "hubert (bfloat16)"]),
        ({}, {"storage": "float32"}, ["hubert", "hubert (stored as float32)"]),
        ({"device": "cpu"}, {"device": "cuda"}, ["hubert (cpu)", "hubert (cuda)"]),
        (
            {"device": "cpu"},
            {"device": "cuda", "precision": "bfloat16"},
            ["hubert", "hubert (bfloat16)"],
        ),
        (
            {"fingerprint": "a" * 16},
            {"fingerprint": "b" * 16, "precision": "bfloat16"},
            ["hubert @aaaaaaaa", "hubert @bbbbbbbb (bfloat16)"],
        ),
    ],
)
def test_other_features_are_another_row(result, one, other, labels):
    board = arrange(
        [
            result("hubert", "ks", "last", 90.0, **one),
            result("hubert", "ks", "last", 80.0, **other),
            result("wavlm", "ks", "last", 70.0, precision="bfloat16"),
        ]
    )
    assert [row.label for row in board.tables[0].rows] == [*labels, "wavlm"]
    assert not board.notes
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [row["precision"] for row in rows] == [
        one.get("precision", "float32"),
        other.get("precision", "float32"),
        "bfloat16",
    ]


def test_different_utterances_left_out_never_mix(result):
    board = arrange(
        [
            result("a", "ks", "last", 90.0),
            result("b", "ks", "last", 91.0, skipped=("x.wav",)),
            result("c", "ks", "last", 92.0, skipped=("y.wav", "1|2", "z.wav", "w.wav")),
            result("d", "ks", "last", 93.0, skipped=("w.wav", "z.wav", "1|2", "y.wav")),
        ]
    )
    assert [[row.upstream for row in table.rows] for table in board.tables] == [
        ["a"],
        ["b"],
        ["d", "c"],
    ]
    text = render(board)
    assert text.count("left out for bad audio") == 2
    assert "1 utterance left out for bad audio: x.wav" in text
    assert "4 utterances left out for bad audio: 1|2, w.wav, y.wav and 1 more" in text
    assert r"1\|2, w.wav" in render(board, "markdown")
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [row["utterances_left_out"] for row in rows] == ["0", "1", "4", "4"]
    assert len({row["left_out_sha256"] for row in rows}) == 3


def test_intervals_over_utterances_are_marked(result):
    speakers = result("a", "ks", "last", 90.0, by_utterance=False)
    utterances = result("b", "ks", "last", 80.0, by_utterance=True)
    for format in ("terminal", "markdown"):
        both = render(arrange([speakers, utterances]), format)
        assert re.search(r"80\.0 \[78\.0, 82\.0\]\**³", both)
        assert "interval over speakers, or over utterances where marked ³" in both
        assert "³ interval over utterances for want of known speakers" in both
        alone = render(arrange([utterances]), format)
        assert "95 % interval over utterances" in alone
        assert "over speakers" not in alone
        assert "³" not in render(arrange([speakers]), format)
    rows = list(csv.DictReader(io.StringIO(render(arrange([speakers, utterances]), "csv"))))
    assert [row["by_utterance"] for row in rows] == ["False", "True"]


def test_bold_is_all_that_overlap_the_best(result):
    board = arrange(
        [
            result("a", "ks", "last", 90.0, half=5),
            result("b", "ks", "last", 81.0, half=4),  # up to 85, where a begins
            result("c", "ks", "last", 80.0, half=4),  # overlaps b, but not a
        ]
    )
    marks = {row.upstream: row.cells["last"].not_separated for row in board.tables[0].rows}
    assert marks == {"a": True, "b": True, "c": False}


HOSTILE = [
    "a|b",
    "line\nbreak",
    "<script>alert(1)</script>",
    "[red]bold[/red]",
    "[link](javascript:x)",
    "*star* _under_ `tick`",
    "\x1b[31mred",
    "\u202egnp.exe",
    "../../etc/passwd",
    "=1+1",
    "[/",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(save, tmp_path, name):
    path = save(name, "ks", "last", 90.0, note=name)
    assert path.is_relative_to(tmp_path / "results" / "ks")
    board = collect(tmp_path / "results")
    terminal, markdown, table = (render(board, kind) for kind in ("terminal", "markdown", "csv"))
    assert printable(name) in terminal
    for text in (terminal, markdown, table):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in markdown
    row = next(line for line in markdown.splitlines() if "90.0" in line)
    assert row.replace("\\|", "").count("|") == 4
    cells = list(csv.reader(io.StringIO(table)))
    assert len(cells) == 2
    assert len(cells[1]) == len(cells[0])


def test_escape_markdown():
    assert escape_markdown("base_ls960 _x_ |") == r"base_ls960 \_x\_ \|"
    assert escape_markdown("[red]*<b>&") == r"\[red\]\*&lt;b&gt;&amp;"
    assert escape_markdown("a\nb") == r"a\\nb"


def test_damaged_and_newer_files_are_named_and_left_out(save, folder):
    damaged = save("cpc", "ks", "last", 99.0)
    damaged.write_text(damaged.read_text().replace("99.0", "99.9"))
    newer = save("wavlm", "ks", "last", 99.0)
    newer.write_text('{"schema": 2}')
    board = collect(folder)
    assert len(board.problems) == 2
    text = render(board, "markdown")
    assert "does not match its checksum" in text
    assert "newer version" in text
    assert "| cpc |" not in text
    terminal = render(board).replace("\n", "")
    assert damaged.name in terminal
    assert newer.name in terminal


def test_nothing_but_damage(tmp_path):
    (tmp_path / "x.json").write_text("{")
    board = collect(tmp_path)
    assert board.tables == ()
    for format in ("terminal", "markdown"):
        assert "no result could be read" in render(board, format)


def test_empty_folder(tmp_path):
    with pytest.raises(SuperbError, match=r"holds no results yet.*superb run"):
        collect(tmp_path)
    with pytest.raises(SuperbError, match="does not exist"):
        collect(tmp_path / "nowhere")


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv"])
def test_imports_nothing_heavy(folder, format):
    code = (
        "import sys; from leaderboard.collect import collect; from leaderboard.render import "
        "render; import leaderboard.difference; "
        f"render(collect({str(folder)!r}), {format!r}); "
        "print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
