"""The pages of a site, as files: they hold together, say what the tables say, and run nothing."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas
import pytest
from typer.testing import CliRunner

from benchmark.errors import SuperbError
from benchmark.scoring.results import write_result
from leaderboard.compare.encoders import compare
from leaderboard.show.site import SiteOptions, write_site
from leaderboard.show.site.content import read_content
from leaderboard.show.site.pairs import choose_pairs
from superb.cli import app
from tests.leaderboard.conftest import build, records, variant
from tests.leaderboard.show.report.test_page import Page, rich

HOSTILE = '../"><script src=//evil.example/x.js></script>\x1b[31m'


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "results"
    for position, name in enumerate(("hubert", "HuBERT", HOSTILE)):
        for layer in ("last", "weighted-sum"):
            for task in ("ks", "sid"):
                made = rich(
                    build(
                        name,
                        task,
                        layer,
                        80.0 - position,
                        created=f"2026-01-0{position + 1}T00:00:00+00:00",
                        note=HOSTILE,
                        trained_on=None if position else (HOSTILE,),
                    )
                )
                write_result(folder, made, records(made, speakers=6))
    lone = build("lone", "asr", "last", 20.0)
    write_result(folder, lone, records(lone))
    failed = variant(build("hubert", "asr", "last", None), HOSTILE)
    write_result(folder, failed, {})
    return folder


@pytest.fixture(scope="module")
def site(results, tmp_path_factory):
    first, _ = write_site(results.parent, tmp_path_factory.mktemp("site") / "public")
    return first.parent


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_link_leads_to_a_page_of_the_site(site, pages):
    anchors = {path: {a["id"] for _, a, _ in page.elements if "id" in a} for path, page in
               pages.items()}  # fmt: skip
    for path, page in pages.items():
        for tag, attributes, _ in page.elements:
            for name in {"href", "src"} & attributes.keys():
                target, _, anchor = attributes[name].partition("#")
                place = (path.parent / unquote(target)).resolve() if target else path
                assert place.is_file(), (path, attributes[name])
                assert place.is_relative_to(site.resolve())
                if anchor:
                    assert unquote(anchor) in anchors[place], (tag, anchor)


def test_nothing_of_a_stranger_is_markup(pages):
    for page in pages.values():
        assert [entry["src"].rpartition("/")[2] for entry in page.all("script")] == ["sort.js"]
        assert not [name for _, a, _ in page.elements for name in a if name.startswith("on")]
        assert page.all("meta")[1]["content"].startswith("default-src 'none'")
        assert "\x1b" not in page.text
    assert any("<script src=//evil" in page.text for page in pages.values())


def test_pages_can_be_read_without_eyes(pages):
    for path, page in pages.items():
        tags = [tag for tag, _, _ in page.elements]
        assert (tags.count("main"), tags.count("h1"), tags.count("header")) == (1, 1, 1), path
        levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
        steps = itertools.pairwise(levels)
        assert all(after <= before + 1 for before, after in steps), (path, levels)
        assert page.all("html") == [{"lang": "en"}]
        assert page.all("nav")[0]["aria-label"]
        assert all("scope" in head for head in page.all("th"))
        ids = [a["id"] for _, a, _ in page.elements if "id" in a]
        assert len(ids) == len(set(ids)), path
        for _, attributes, _ in page.elements:
            assert attributes.get("aria-labelledby", ids[0]) in ids
        for svg in page.all("svg"):
            assert svg.get("aria-hidden") == "true" or svg.get("role") == "img"


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_stands_out_in_light_and_dark(site):
    style = (site / "assets" / "style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for text in ("text", "quiet", "accent", "good", "bad", "second"):
            for ground in ("page", "raised"):
                bright, dim = sorted(
                    (luminance(colours[name]) for name in (text, ground)), reverse=True
                )
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


def test_names_that_a_disk_takes_for_one_have_pages_of_their_own(site):
    names = [path.name.lower() for path in (site / "encoders").iterdir()]
    assert len(names) == len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z0-9-]+\.html", name) for name in names)


def test_pairs_say_what_compare_says(results, pages):
    (page,) = (page for path, page in pages.items() if path.parent.name == "pairs"
               and "HuBERT" in page.text and "hubert" in page.text)  # fmt: skip
    for found in compare(results, ["HuBERT", "hubert"], ["ks", "sid"]).pairs:
        assert f"{found.pair.difference.value:+.1f}"[1:] in page.text
    assert "adjusted for 4 comparisons" in page.text


def test_as_many_pairs_as_may_be_the_best_first(results):
    content = read_content(results)
    every = choose_pairs(content, 1_000)
    assert len(every) == 3  # lone shares no table
    few = choose_pairs(content, 1)
    assert [{encoder.name for encoder in two} for two in few] == [{"hubert", "HuBERT"}]
    assert choose_pairs(content, 0) == []


def test_downloads_hold_all_results_in_full(results, site):
    records = json.loads((site / "downloads" / "results.json").read_text())
    table = pandas.read_parquet(site / "downloads" / "results.parquet")
    assert len(records) == len(table) == 12 + 2 + 1  # of asr there are two metrics
    assert [entry["value"] for entry in records if entry["value"] is not None] == list(
        table["value"].dropna()
    )
    assert {entry["upstream"] for entry in records} >= {HOSTILE, "lone"}


def test_the_feed_is_atom_with_the_newest_first(site, results, tmp_path):
    atom = "{http://www.w3.org/2005/Atom}"
    feed = ElementTree.parse(site / "feed.xml").getroot()
    moments = [entry.findtext(f"{atom}updated") for entry in feed.iter(f"{atom}entry")]
    assert moments == sorted(moments, reverse=True)
    ids = [entry.findtext(f"{atom}id") for entry in feed.iter(f"{atom}entry")]
    assert len(ids) == len(set(ids)) == 14
    place = SiteOptions(url="https://example.org/board", pairs=0)
    write_site(results, tmp_path / "site", place)
    text = (tmp_path / "site" / "feed.xml").read_text()
    assert 'href="https://example.org/board/encoders/' in text


def test_again_the_same_bytes_in_place_of_the_old(results, tmp_path):
    output, options = tmp_path / "public", SiteOptions(pairs=1)
    write_site(results, output, options)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    (output / "stale.html").write_text("old")
    write_site(results, output, options)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


def test_other_folders_are_left_alone(results, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    refused = CliRunner().invoke(app, ["site", str(results), "-o", str(tmp_path / "mine")])
    assert isinstance(refused.exception, SuperbError)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    for wrong in (SiteOptions(pairs=-1), SiteOptions(url="javascript:alert(1)")):
        with pytest.raises(SuperbError):
            write_site(results, tmp_path / "new", wrong)
    assert not (tmp_path / "new").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SuperbError, match="where you are"):
        write_site(results, ".")


def test_a_link_out_of_the_folder_is_refused(results, tmp_path):
    board = tmp_path / "results"
    board.mkdir()
    Path(board / "run.json").symlink_to(next(results.rglob("*.json")))
    with pytest.raises(SuperbError, match="leads out"):
        write_site(board, tmp_path / "public")


def test_a_run_that_makes_no_sense_of_time_is_last(result, tmp_path):
    for name, created in (("a", "soon"), ("b", "2026-01-01T00:00:00+00:00")):
        made = dataclasses.replace(result(name, "ks", "last", 50.0), created=created)
        write_result(tmp_path / "results", made, records(made))
    write_site(tmp_path / "results", tmp_path / "public", SiteOptions(pairs=0))
    assert "1970-01-01" in (tmp_path / "public" / "feed.xml").read_text()
