"""What was typed becomes tasks: all of a corpus, label columns, lexica, and what cannot be."""

import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams import DOWNSTREAMS
from downstreams.corpora import CORPORA
from superb import run
from superb.compose import unbundled
from tests.made import QUICK, RATE, tone


@pytest.fixture
def commands(tmp_path):
    """Three splits of two commands each, with two labels and a text."""
    rows = ["audio,split,speaker,what,where,text"]
    for place, (split, word) in enumerate(
        (split, word) for split in ("train", "valid", "test") for word in ("on", "off")
    ):
        audio = tone({"on": "yes", "off": "no"}[word], "ada", place)
        soundfile.write(tmp_path / f"{place}.wav", audio, RATE)
        rows.append(f"{place}.wav,{split},s{place},{word},{'in' if word == 'on' else 'out'},{word}")
    path = tmp_path / "commands.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_all_is_what_the_bundled_corpus_serves():
    served = CORPORA["mini"].tasks
    assert unbundled(list(DOWNSTREAMS), "mini") == [t for t in DOWNSTREAMS if t not in served]
    assert unbundled(["all"], "mini") == unbundled(["er"], "mini") == []
    assert unbundled(["ks", "er"], "my.csv") == []


def test_a_task_without_a_bundled_corpus_says_what_to_type():
    with pytest.raises(SuperbError, match=r"--corpus iemocap .* or your own, with columns audio"):
        run("fbank", "er")


def test_labels_of_ones_own(commands, places, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text(QUICK.replace("[ks]", "[ic]"))
    places = {**places, "corpus": commands, "protocol": str(rules)}
    (result,) = run("fbank", "ic", layers="last", slots=("what", "where"), **places)
    assert list(result.downstream["needs"]) == ["what", "where"]
    assert result.metrics["accuracy"]["utterances"] == 2
    (other,) = run("fbank", "ic", layers="last", slots=("what",), **places)
    assert other.run_id != result.run_id


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("ic", {}, "lacks the columns action, object, location.* --slots COLUMN,COLUMN names"),
        ("ks", {"slots": ("what",)}, "--slots is for tasks with several labels, such as ic"),
        ("ks", {"pronunciations": "l.txt"}, "--pronunciations is for what needs phones"),
        ("pr", {"lexicon": "l.txt"}, "Phones of words come with --pronunciations FILE"),
        ("pr", {"pronunciations": "gone.txt"}, "the lexicon gone.txt cannot be read"),
    ],
)
def test_options_that_do_not_fit(commands, places, task, options, message):
    wanted = {**places, "corpus": commands}
    if task == "ks":
        wanted["corpus"] = places["corpus"]
    else:
        wanted["protocol"] = "mini"
    with pytest.raises(SuperbError, match=message):
        run("fbank", task, layers="last", **options, **wanted)
