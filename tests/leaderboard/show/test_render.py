import csv
import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from benchmark.errors import SuperbError
from leaderboard.read.collect import arrange, collect
from leaderboard.read.names import printable
from leaderboard.show.escape import escape_latex
from leaderboard.show.render import FORMATS, render
from leaderboard.show.terminal import show_board

MARKDOWN = """\
## All tasks on mini, protocol superb version 1

asr version 1: wer in %, corpus mini (c0c0c0c0), protocol content abababab  
ks version 1: accuracy in %, corpus mini (c0c0c0c0), protocol content abababab

| upstream | asr wer ↓ last | asr wer ↓ weighted-sum | ks accuracy ↑ last | ks accuracy ↑ weighted-sum | family | parameters |
| :-- | --: | --: | --: | --: | --: | --: |
| fbank | 60.0 [58.0, 62.0] | – | – | – | predictive | 94.0 M |
| hubert | **20.0 [18.0, 22.0]** | **12.5 [10.5, 14.5]** | 90.0 [88.0, 92.0] | – | predictive | 94.0 M |
| untrained-hubert † | failed | – | – | – | untrained | 94.0 M |
| wavlm | **23.0 [21.0, 25.0]** | **13.0 [11.0, 15.0]**¹ | – | – | predictive | 94.0 M |

- Bold: best of its column, or not separated from the best (intervals overlap)
- \\[low, high\\]: 95 % interval over 10 speakers, and over reruns where there are several seeds
- ¹ one seed: no estimate of seed variance
- † untrained: random weights, a floor for the others
- no mean rank: fewer than two upstreams have a score in every task
- no overall score: SUPERB's constants hold for its own corpora, whole test splits, under the published heads and budgets; here: asr on mini, ks on mini, protocol superb

## asr version 1: wer in % ↓ (lower is better)

corpus mini (c0c0c0c0), protocol superb version 1 (abababab)  
corpus note: synthetic voices

| upstream | last ↓ | weighted-sum ↓ |
| :-- | --: | --: |
| hubert | **20.0 [18.0, 22.0]** | **12.5 [10.5, 14.5]** |
| wavlm | **23.0 [21.0, 25.0]** | **13.0 [11.0, 15.0]**¹ |
| fbank | 60.0 [58.0, 62.0] | – |
| untrained-hubert † | failed | – |

- Bold: best of its column, or not separated from the best (intervals overlap)
- \\[low, high\\]: 95 % interval over 10 speakers, and over reruns where there are several seeds
- ¹ one seed: no estimate of seed variance
- † untrained: random weights, a floor for the others
- untrained-hubert: random weights

## ks version 1: accuracy in % ↑ (higher is better)

corpus mini (c0c0c0c0), protocol superb version 1 (abababab)  
corpus note: synthetic voices

| upstream | last ↑ | weighted-sum ↑ | 3 ↑ | 11 ↑ | weighted-sum-norm ↑ |
| :-- | --: | --: | --: | --: | --: |
| hubert | 90.0 [88.0, 92.0] | – | 80.0 [78.0, 82.0]² | 85.0 [83.0, 87.0] | 95.0 [93.0, 97.0] |

- \\[low, high\\]: 95 % interval over 10 speakers, and over reruns where there are several seeds
- ² best learning rate at an edge of the grid: the score may be low
"""  # noqa: E501, W291


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


@pytest.mark.parametrize("format", FORMATS)
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
    show_board(collect(folder), Console(file=stream, force_terminal=True, width=100))
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
    with pytest.raises(
        SuperbError, match=r"Did you mean markdown.*csv, html, latex, markdown, terminal"
    ):
        render(collect(folder), "markdwon")


def test_intervals_over_utterances_are_marked(result):
    speakers = result("a", "ks", "last", 90.0, by_utterance=False)
    utterances = result("b", "ks", "last", 80.0, by_utterance=True)
    for format in ("terminal", "markdown"):
        both = render(arrange([speakers, utterances]), format)
        assert re.search(r"80\.0 \[78\.0, 82\.0\]\**³", both)
        assert "interval over 10 speakers, or over utterances where marked ³" in both
        assert "³ interval over utterances for want of known speakers" in both
        alone = render(arrange([utterances]), format)
        assert "95 % interval over utterances" in alone
        assert "over speakers" not in alone
        assert "³" not in render(arrange([speakers]), format)
    rows = list(csv.DictReader(io.StringIO(render(arrange([speakers, utterances]), "csv"))))
    assert [row["by_utterance"] for row in rows] == ["False", "True"]


@pytest.mark.parametrize("name", ["=1+1", "+A1", "-2+3", "@SUM(A1)"])
def test_a_spreadsheet_runs_no_name(result, name):
    rows = csv.DictReader(io.StringIO(render(arrange([result(name, "ks", "-1", 90.0)]), "csv")))
    (row,) = rows
    assert row["upstream"] == f"'{name}"
    assert row["layer"] == "-1"  # a number is no formula


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


@pytest.mark.parametrize("name", [*HOSTILE, "100% {a}_b^c~d#e&f$g", "\\input{x}", "[10pt] *row"])
def test_hostile_names(save, tmp_path, name):
    path = save(name, "ks", "last", 90.0, note=name)
    assert path.is_relative_to(tmp_path / "results" / "ks")
    board = collect(tmp_path / "results")
    texts = {kind: render(board, kind) for kind in FORMATS}
    assert printable(name) in texts["terminal"]
    for text in texts.values():
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in texts["markdown"] + texts["html"]
    row = next(line for line in texts["markdown"].splitlines() if "90.0" in line)
    assert row.replace("\\|", "").count("|") == 4
    cells = list(csv.reader(io.StringIO(texts["csv"])))
    assert len(cells) == 2
    assert len(cells[1]) == len(cells[0])
    assert rows_of_html(texts["html"])[1][0] == printable(name)
    row = next(line for line in texts["latex"].splitlines() if "90.0" in line)
    assert row == f"    {escape_latex(name)} & 90.0 {{[}}88.0, 92.0{{]}} & \\textendash{{}} \\\\"
    check_latex(texts["latex"])


def rows_of_html(text):
    """Cells of all tables, after a check that every tag is closed in order."""

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.rows = [], []

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)
            if tag == "tr":
                self.rows.append([])
            if tag in ("th", "td"):
                self.rows[-1].append("")

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            if {"th", "td"} & set(self.open):
                self.rows[-1][-1] += data

    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader.rows


def check_latex(text):
    """What TeX would stumble over: groups, environments, cells per row, bare special characters."""
    lines = (line.removesuffix("{%") + "{" * line.endswith("{%") for line in text.splitlines())
    body = "\n".join(line for line in lines if not line.startswith("%"))
    bare = re.sub(r"\\\\|\\[{}$&#%_]", "", body)  # without what is escaped
    depth = 0
    for char in bare:
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[#%_^~]", re.sub(r"\\textascii\w+", "", bare))
    assert bare.count("$") % 2 == 0
    for kind in ("table", "tabular"):
        assert body.count(f"\\begin{{{kind}}}") == body.count(f"\\end{{{kind}}}") > 0
    for tabular in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", body, re.DOTALL):
        columns, lines = tabular
        rules = [line.strip() for line in lines.splitlines() if "rule" in line]
        assert rules[0] == r"\toprule"
        assert rules[-2:] == [r"\midrule", r"\bottomrule"]
        rows = [line for line in lines.splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            spans = [int(span) for span in re.findall(r"\\multicolumn{(\d+)}", row)]
            cells = len(re.findall(r"(?<!\\)&", row)) + 1
            assert cells + sum(spans) - len(spans) == len(columns)
    assert body.isascii() or all(char.isalpha() and char <= "ÿ" for char in body if char > "~")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("wide", [False, True])
def test_latex_compiles(result, tmp_path, wide):
    names = [r"<b> & $x_%# | ~^{}\ ", 'a--b "c" `d\'', "é Б 日本 x\ny"]
    runs = [
        result(name, task, layer, 50.0)
        for name in names
        for task in ("asr", "ks")
        for layer in ("last", "weighted-sum")
    ]
    table = tmp_path / "table.tex"
    table.write_text(render(arrange(runs), "latex", with_published=True, wide=wide))
    document = tmp_path / "document.tex"
    document.write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", document]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_latex_and_html_of_a_whole_board(folder):
    board = collect(folder)
    latex = render(board, "latex", with_published=True)
    check_latex(latex)
    assert r"\multicolumn{2}{c}{asr wer $\downarrow$}" in render(board, "latex", wide=True)
    assert r"\textbf{20.0 {[}18.0, 22.0{]}}" in latex
    assert r"\textsuperscript{1}" in latex
    rows = rows_of_html(render(board, "html", with_published=True))
    assert ["hubert", "20.0 [18.0, 22.0]", "12.5 [10.5, 14.5]"] in rows
    assert "<strong>20.0 [18.0, 22.0]</strong>" in render(board, "html")


def test_damaged_and_newer_files_are_named_and_left_out(save, folder):
    damaged = save("cpc", "ks", "last", 99.0)
    damaged.write_text(damaged.read_text().replace("99.0", "99.9"))
    newer = save("wavlm", "ks", "last", 99.0)
    newer.write_text('{"schema": 4}')
    board = collect(folder)
    assert len(board.problems) == 2
    text = render(board, "markdown")
    assert "does not match its checksum" in text
    assert "newer version" in text
    assert "| cpc |" not in text
    terminal = render(board).replace("\n", "")
    assert damaged.name in terminal
    assert newer.name in terminal


def test_two_hundred_upstreams(result):
    runs = [
        result(f"encoder-{number:03d}", task, layer, 90 - 0.2 * number, half=0.05)
        for number in range(200)
        for task in ("ks", "sid")
        for layer in ("last", "weighted-sum")
    ]
    board = arrange(runs)
    for kind in FORMATS:
        assert "encoder-199" in render(board, kind)
    assert all(len(line) <= 100 for line in render(board, width=100).splitlines())


def test_many_notes_are_counted(result):
    runs = [result("hubert", "ks", "last", 70.0, seeds=(seed,)) for seed in range(40)]
    text = render(arrange(runs), "markdown")
    assert text.count("note: ks, hubert, last") == 20
    assert "note: 19 more runs are left out" in text


def test_what_the_encoder_costs(result):
    facts = {"parameters": 94_371_712, "throughput": 21.46, "macs": 6.5e9}
    runs = [result("hubert", task, "last", 90.0, **facts) for task in ("ks", "sid")]
    text = render(arrange(runs), "markdown")
    assert "| family | parameters | MACs/s | throughput |" in text
    assert "| predictive | 94.4 M | 6.5 G | 21.5 |" in text
    assert "MACs/s" not in render(arrange([replace(run, encoder={}) for run in runs]), "markdown")
    row = next(csv.DictReader(io.StringIO(render(arrange(runs), "csv"))))
    assert (row["parameters"], row["macs"]) == ("94371712", "6500000000.0")


def test_wide_is_one_line_per_upstream(folder):
    text = render(collect(folder), wide=True)
    line = next(line for line in text.splitlines() if line.startswith(" hubert"))
    for score in ("20.0 [18.0, 22.0]*", "12.5 [10.5, 14.5]", "90.0 [88.0, 92.0]"):
        assert score in line


def test_nothing_but_damage(tmp_path):
    (tmp_path / "x.json").write_text("{")
    board = collect(tmp_path)
    assert board.tables == ()
    for format in ("terminal", "markdown"):
        assert "no result could be read" in render(board, format)


@pytest.mark.parametrize("format", FORMATS)
def test_imports_nothing_heavy(folder, format):
    code = (
        "import sys; from leaderboard.read.collect import collect; "
        "from leaderboard.show.render import render; import leaderboard.compare.difference; "
        f"render(collect({str(folder)!r}), {format!r}); "
        "print([name for name in ('torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
