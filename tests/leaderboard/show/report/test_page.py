import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from benchmark.core import Record
from benchmark.errors import SuperbError
from benchmark.scoring.results import run_id, write_result
from downstreams.corpora.mini import load
from leaderboard.show.report import build_report, write_report
from superb.cli import app
from superb.recordings import bundled_recordings
from tests.leaderboard.conftest import variant

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements, text and data of a report; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), tag
        self.elements.append((tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(self.texts)

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def facts(self, run_id):
        places = self.data["runs"][run_id]
        texts = [self.data["texts"][place] for place in places]
        return dict(zip(texts[::2], texts[1::2], strict=True))


def rich(made):
    """A result with everything that can be drawn."""
    return dataclasses.replace(
        made,
        layer_weights=[0.2, 0.5, 0.3],
        layer_norms=[3.0, 5.0, 40.0],
        learning_rate_curve=[
            {"learning_rate": 1e-4, "valid": 50.0, "status": "dropped", "updates": 50,
             "reason": "not among the best"},
            {"learning_rate": 1e-3, "valid": 20.0, "status": "finished", "updates": 200,
             "reason": ""},
            {"learning_rate": 1e-2, "valid": None, "status": "failed", "updates": 10,
             "reason": "loss is not finite"},
        ],
        history=[
            {"learning_rate": rate, "seed": 0, "update": update, "train_loss": 1.0,
             "valid": 60.0 - update / 10}
            for rate in (1e-4, 1e-3)
            for update in (50, 100)
        ],
        provenance={"superb": "0.1.0", "commit": "f" * 40, "dirty": True, "python": "3.11.7",
                    "packages": {"torch": "2.11.0"},
                    "command": ["superb", "run", "--upstream", made.upstream["name"]]},
    )  # fmt: skip


def sentence(name, speaker, reference, hypothesis, errors):
    words = len(reference.split())
    counts = {"wer": (errors, words), "cer": (errors, len(reference))}
    return Record(name, (speaker,), reference, hypothesis, counts)


SENTENCES = [
    sentence("u1", "ann", "the cat sat", "the cat sat", 0),
    sentence("u2", "ann", "a dog barked loudly", "a frog barked", 2),
    sentence("u3", "bob", "go", "go on now", 2),
]


@pytest.fixture
def folder(save, result, tmp_path):
    root = tmp_path / "results"
    for upstream, value in (("hubert", 12.5), ("wavlm", 13.0), ("fbank", 60.0)):
        for layer, more in (("last", 7.5), ("weighted-sum", 0.0)):
            made = rich(result(upstream, "asr", layer, value + more, seeds=(0, 1)))
            write_result(root, made, {0: SENTENCES, 1: SENTENCES})
    for layer in ("last", "weighted-sum", "0", "1"):
        save("hubert", "ks", layer, 90.0)
    save("untrained:hubert", "asr", "last", None, family="untrained", note="random weights")
    return root


@pytest.fixture
def page(folder):
    return Page(build_report(folder))


def test_one_file_that_needs_no_other(folder, page):
    for tag, attributes, _ in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, name)
    assert not re.search(r"https?:|//\w+\.\w|url\(|@import", build_report(folder))


def test_elements_that_are_pointed_to_exist_once(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = [attributes["aria-labelledby"] for _, attributes, _ in page.elements
               if "aria-labelledby" in attributes]  # fmt: skip
    pointed += [attributes["href"][1:] for attributes in page.all("a")]
    assert len(pointed) > 6
    assert set(pointed) <= set(ids)


def test_controls_can_be_named_and_reached(page):
    for tag, _, parents in page.elements:
        if tag in ("input", "select"):
            assert "label" in parents
    assert page.all("a")[0] == {"class": "skip", "href": "#results"}
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    heads = [head for head in page.all("th") if head.get("scope") == "col"]
    assert {head["aria-sort"] for head in heads} == {"none"}
    scores = [button for button in page.all("button") if "data-run" in button]
    assert len(scores) == 11
    assert {button["data-run"] for button in scores} == set(page.data["runs"])


def test_scores_have_intervals_and_ties_are_marked(folder):
    section = build_report(folder).partition('<section id="table-0"')[2]
    row = re.search(r'<th[^>]*data-value="hubert".*?</tr>', section)[0]
    last, weighted = re.findall(r"<td.*?</td>", row)[:2]
    assert 'data-value="20.0"' in last
    assert 'data-value="12.5"' in weighted
    assert 'class="close"' in weighted
    assert "12.5" in weighted
    assert "[10.5, 14.5]" in weighted
    assert "<sup>*</sup>" in weighted


def test_a_score_says_where_it_comes_from(page, result):
    made = result("hubert", "asr", "weighted-sum", 12.5, seeds=(0, 1))
    facts = page.facts(made.run_id)
    assert facts["file"] == f"asr/hubert/{made.run_id}.json"
    assert facts["run"] == made.run_id
    assert facts["test wer"].startswith("12.500 %, 95 % interval [10.500, 14.500] over 10 speakers")
    assert facts["learning rate"] == "0.001, chosen on valid of 0.0001, 0.001, 0.01"
    assert facts["protocol"] == f"superb version 1 ({'ab' * 32})"
    assert facts["command"] == "superb run --upstream hubert"
    assert facts["code"] == f"superb 0.1.0, commit {'f' * 40} with changes, Python 3.11.7"
    assert facts["seeds"] == "0; 1"
    assert facts["packages"] == "torch 2.11.0"


def test_every_kind_of_drawing_is_there(page):
    labels = {svg["aria-label"] for svg in page.all("svg") if "aria-label" in svg}
    assert {
        "Weights of weighted-sum",
        "Mean L2 norm of the frames",
        "accuracy of single layers",
        "Valid wer by learning rate, weighted-sum",
        "Valid wer during training, last",
        "WER by number of words in the reference",
        "Speakers by wer, worst first",
        "Confusion matrix, 2 classes",
    } <= labels
    assert "without a score: 0.01" in page.text


def test_studies_of_heads_and_labels_stand_before_the_tables(save, result, tmp_path):
    root = tmp_path / "results"
    for name, ctc, attention in (("a<b", 10.0, 30.0), ("b", 20.0, 20.0), ("c", 40.0, 41.0)):
        save(name, "asr", "weighted-sum", ctc, half=0.5)
        for score, *what in (
            (attention, "asr-attention"), (ctc + 30, "asr-2min", "2min", 120.0),
        ):  # fmt: skip
            made = variant(result(name, "asr", "weighted-sum", score, half=0.5), *what)
            write_result(root, made, dict.fromkeys(made.seeds, SENTENCES))
    text = build_report(root)
    page = Page(text)
    ids = [attributes.get("id") for attributes in page.all("section")]
    assert ids == ["study-0", "study-1", "table-0", "table-1", "table-2"]
    links = [attributes["href"] for attributes in page.all("a")]
    assert links[1:6] == [f"#{name}" for name in ids]
    heads, labels = re.findall(r'<section class="summary" id="study-.*?</section>', text, re.S)
    for said in ("flips: a&lt;b and b", "tau +0.33", "a&lt;b, asr-attention: 30.0 [29.5, 30.5]",
                 'data-value="30.0"', 'aria-label="asr on mini by head"'):  # fmt: skip
        assert said in heads
    assert "2min: 50.0 [49.5, 50.5]" in labels
    assert "all: 39 min" in labels
    assert heads.count('class="way"') == 3
    assert "on mini, protocol superb version 1" in page.text
    assert "ASR (asr-attention) on mini" in page.text


def test_mistakes_are_told_apart_by_more_than_colour(folder):
    text = build_report(folder)
    assert "<del>−dog</del> <ins>+frog</ins>" in text
    assert "<del>−loudly</del>" in text
    assert "<ins>+on</ins>" in text


def test_what_the_weighted_sum_adds_is_paired(page):
    assert "Weighted sum − last: 0.0 [" in page.text


@pytest.mark.parametrize(("task", "there"), [("qbe", False), ("asr", True)])
def test_what_trains_nothing_has_no_learning_rates(result, tmp_path, task, there):
    found = result("hubert", task, "last", 20.0)
    values = {metric["name"]: (1, 1) for metric in found.downstream["metrics"]}
    records = [Record("u", ("ann",), "yes", "yes", values)]
    write_result(tmp_path, found, dict.fromkeys(found.seeds, records))
    assert ("<h4>Learning rates</h4>" in build_report(tmp_path)) == there


def test_the_corpora_heard_in_training_are_named(result, tmp_path):
    made = result("hubert", "asr", "last", 20.0)
    for name, corpora in (("a", ["mini", "x"]), ("b", ["x"]), ("c", None)):
        identity = {**made.identity, "upstream": {"name": name, "fingerprint": name}}
        card = {**made.upstream, "name": name, "trained_on": corpora}
        other = dataclasses.replace(made, run_id=run_id(identity), identity=identity, upstream=card)
        write_result(tmp_path, other, dict.fromkeys(made.seeds, SENTENCES))
    text = build_report(tmp_path)
    heard = [re.findall(r'<td class="words" data-value="([^"]*)"', row)
             for row in re.findall("<tr data-name.*?</tr>", text)]  # fmt: skip
    assert heard == [["yes: mini"], ["not on its card"], ["not disclosed"]]


@pytest.mark.parametrize("name", [HOSTILE, "</script><img src=x onerror=alert(1)>", '"><b>', "]]>"])
def test_names_are_text_wherever_they_stand(result, tmp_path, name):
    made = rich(result(name, "asr", "weighted-sum", 20.0, note=name))
    records = [sentence(name, name, f"a {name}", f"b {name} c", 2)]
    write_result(tmp_path, made, dict.fromkeys(made.seeds, records))
    text = build_report(tmp_path)
    page = Page(text)
    assert len(page.all("script")) == 2
    assert page.all("img") == page.all("b") == []
    assert name in "".join(page.texts)
    assert page.facts(made.run_id)["upstream"] == name
    assert text.count("</script>") == 2


def test_only_the_script_of_the_report_may_run(page):
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attributes, _ in page.elements
                   for name in attributes)  # fmt: skip


def test_same_files_same_bytes(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    first = write_report(folder, tmp_path / "a.html").read_bytes()
    assert write_report(tmp_path / "copy", tmp_path / "b.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.html", "b.html", "copy", "results")
    ]


def test_one_failed_result_is_a_report(save, tmp_path):
    save("hubert", "asr", "last", None)
    page = Page(build_report(tmp_path / "results"))
    assert "failed" in page.text
    assert page.facts(*page.data["runs"])["failed at 0.001"] == "loss is not finite"
    assert "No run finished" in page.text


def test_what_cannot_be_read_is_named(folder):
    damaged = folder / "asr" / "fbank" / "broken.json"
    damaged.write_text("{")
    for table in folder.glob("ks/hubert/*.csv"):
        table.unlink()
    text = Page(build_report(folder)).text
    assert f"{damaged} is not valid JSON" in text
    assert "The answers cannot be shown" in text


def test_two_hundred_upstreams_stay_small(result, tmp_path):
    for place in range(200):
        made = rich(result(f"encoder-{place:03}", "asr", "weighted-sum", 20.0 + place / 10))
        write_result(tmp_path, made, dict.fromkeys(made.seeds, SENTENCES))
    text = build_report(tmp_path)
    page = Page(text)
    assert len(text) < 1_000_000
    assert len(page.all("details")) == 10
    assert "the best 10 of 200 upstreams" in page.text
    assert len(page.data["runs"]) == 200


def keywords(result, root, wrong):
    """Results on the bundled corpus, with a few answers wrong."""
    corpus = load("ks")
    made = result("hubert", "ks", "last", 90.0, corpus_sha256=corpus.sha256)
    records = [
        Record(u.id, (u.speaker,), u.label, "off" if place < wrong else u.label,
              {"accuracy": (int(place >= wrong), 1)})
        for place, u in enumerate(u for u in corpus.utterances if u.split == "test")
    ]  # fmt: skip
    write_result(root, made, dict.fromkeys(made.seeds, records))
    return corpus


def test_bundled_recordings_are_embedded_as_stored(result, tmp_path):
    corpus = keywords(result, tmp_path, wrong=3)
    stored = {utterance.id: utterance.audio for utterance in corpus.utterances}
    page = Page(build_report(tmp_path, recordings=bundled_recordings))
    keys = [button["data-audio"] for button in page.all("button") if "data-audio" in button]
    assert len(keys) == 3
    for key in keys:
        kind, _, data = page.data["audio"][key].partition(";base64,")
        assert kind == "data:audio/ogg"
        assert base64.b64decode(data) == stored[key.partition("/")[2]]
    assert "recordings: 3 of the 3 shown" in page.text
    silent = Page(build_report(tmp_path))
    assert silent.data["audio"] == {}
    assert not any("data-audio" in button for button in silent.all("button"))


def test_bad_input_is_one_clear_message(folder, tmp_path):
    with pytest.raises(SuperbError, match="is a folder; give a file"):
        write_report(folder, tmp_path)
    with pytest.raises(SuperbError, match="does not exist"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")
    with pytest.raises(SuperbError, match="at least 0; got -1"):
        write_report(folder, tmp_path / "report.html", detailed=-1)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SuperbError, match="cannot be written"):
        write_report(folder, tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "kept"


def test_the_command_says_what_it_wrote(folder, tmp_path):
    path = tmp_path / "new" / "report.html"
    done = CliRunner().invoke(app, ["report", str(folder), "-o", str(path), "--details", "1"])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{path}: ")
    assert len(Page(path.read_text()).all("details")) == 2  # one for each table


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)  # fmt: skip
SCRIPT = """
const log = [];
const table = document.querySelector("#table-0 table");
const names = () => [...table.tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => row.cells[0].dataset.value);
log.push(document.getElementById("shown").textContent);
const heads = table.querySelectorAll("thead button");
heads[0].click();
log.push(names(), heads[0].parentElement.getAttribute("aria-sort"));
heads[2].click();
heads[2].click();
log.push(names(), heads[2].parentElement.getAttribute("aria-sort"));
const search = document.getElementById("filter-upstream");
search.value = "HUB";
search.dispatchEvent(new Event("input", { bubbles: true }));
log.push(names(), document.getElementById("shown").textContent);
table.querySelector("tr:not([hidden]) button.score").click();
log.push(document.querySelector("dialog").open, document.querySelector("dd").textContent);
document.querySelectorAll("details").forEach((entry) => { entry.open = true; });
document.body.style.width = "390px"; // of a phone: a window cannot be as narrow
log.push(document.body.scrollWidth <= 390);
log.push(window.mistakes);
document.title = JSON.stringify(log);
"""


def dump(path, profile):
    """The page after its scripts have run."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--window-size=390,900", f"--user-data-dir={profile}"),
        *("--dump-dom", path.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_in_a_browser(folder, tmp_path):
    path = write_report(folder, tmp_path / "report.html")
    # As written: its script runs, so the policy lets it.
    assert re.search(r"<output[^>]*>5 of 5 rows</output>", dump(path, tmp_path / "profile"))
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text())
    watch = "<script>window.mistakes = []; onerror = (text) => mistakes.push(text);</script>"
    text = text.replace("<head>", "<head>" + watch).replace(
        "</body>", f"<script>{SCRIPT}</script></body>"
    )
    path.write_text(text)
    title = re.search("<title>(.*?)</title>", dump(path, tmp_path / "profile"))[1]
    assert json.loads(html.unescape(title)) == [
        "5 of 5 rows",
        ["fbank", "hubert", "untrained:hubert", "wavlm"],
        "ascending",
        ["fbank", "wavlm", "hubert", "untrained:hubert"],
        "descending",
        ["hubert", "untrained:hubert"],
        "3 of 5 rows",
        True,
        "hubert",
        True,
        [],
    ]
