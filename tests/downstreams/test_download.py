"""Archives over a faulty network: the same bytes in the end, or one clear error, nothing lost."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.progress import Progress
from downstreams.corpora import download as module
from downstreams.corpora import librispeech
from downstreams.corpora.download import download, fetch
from downstreams.corpora.layout import Archive, Layout, Official, Survey

QUIET = Progress(quiet=True)
# Does not compress, so that the archive has some size.
CONTENT = {f"toy/one/{n}.wav": np.random.default_rng(n).bytes(50_000) for n in range(3)}


@dataclass
class Site:
    """What a server does."""

    files: dict[str, bytes]
    url: str = ""
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which one answer each breaks off
    codes: list[int] = field(default_factory=list)  # one answer each
    asked: list[str] = field(default_factory=list)  # Range of every request, or ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Site({})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            code = state.codes.pop(0) if state.codes else 200
            body = state.files.get(self.path.lstrip("/"))
            if body is None or code != 200:
                self.send_error(404 if body is None else code)
                return
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            self.wfile.write(body[first:][: state.cuts.pop(0) if state.cuts else None])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def tar(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)  # the same bytes a second later


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def publish(site: Site, name: str = "toy.tar.gz", data: bytes | None = None) -> Archive:
    """Put an archive on the server."""
    data = tar(CONTENT) if data is None else data
    site.files[name] = data
    sha256 = hashlib.sha256(data).hexdigest()
    return Archive(f"{site.url}/{name}", sha256, len(data), "", ("one",))


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_is_unpacked_and_nothing_else_is_left(tmp_path, site, pack):
    root = tmp_path / "new" / "root"
    fetch(publish(site, data=pack(CONTENT)), root, QUIET)
    assert tree(root) == CONTENT
    assert sorted(path.name for path in root.iterdir()) == ["toy"]


def test_a_cut_connection_is_resumed_to_the_same_bytes(tmp_path, site):
    site.cuts = [70_000, 1]
    fetch(publish(site), tmp_path, QUIET)
    assert site.asked == ["", "bytes=70000-", "bytes=70001-"]
    assert tree(tmp_path) == CONTENT


def test_a_part_file_of_an_earlier_run_is_gone_on_with(tmp_path, site):
    archive = publish(site)
    (tmp_path / "toy.tar.gz.part").write_bytes(site.files["toy.tar.gz"][:1234])
    fetch(archive, tmp_path, QUIET)
    assert site.asked == ["bytes=1234-"]
    assert tree(tmp_path) == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_a_part_file_that_is_whole_is_not_downloaded_again(tmp_path, site, known):
    archive = publish(site)
    (tmp_path / "toy.tar.gz.part").write_bytes(site.files["toy.tar.gz"])
    fetch(archive if known else replace(archive, size=None), tmp_path, QUIET)
    assert site.asked == ([] if known else [f"bytes={archive.size}-"])
    assert tree(tmp_path) == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_a_part_file_longer_than_the_archive_starts_over(tmp_path, site, known):
    archive = publish(site)
    (tmp_path / "toy.tar.gz.part").write_bytes(bytes(200_000))
    fetch(archive if known else replace(archive, size=None), tmp_path, QUIET)
    assert site.asked[-1] == ""
    assert tree(tmp_path) == CONTENT


def test_a_server_without_ranges_starts_over(tmp_path, site):
    site.ranges, site.cuts = False, [70_000]
    fetch(publish(site), tmp_path, QUIET)
    assert site.asked == ["", "bytes=70000-"]
    assert tree(tmp_path) == CONTENT


def test_a_server_that_is_busy_is_asked_again(tmp_path, site):
    site.codes = [503, 429]
    fetch(publish(site), tmp_path, QUIET)
    assert len(site.asked) == 3
    assert tree(tmp_path) == CONTENT


def test_a_connection_that_never_holds_gives_up_and_keeps_the_part(tmp_path, site):
    site.cuts = [50_000] + [0] * 50
    with pytest.raises(SuperbError, match=r"cut after 50000 of .*toy.tar.gz.part keeps"):
        fetch(publish(site), tmp_path, QUIET)
    assert len(site.asked) == module.ATTEMPTS
    assert (tmp_path / "toy.tar.gz.part").stat().st_size == 50_000
    site.cuts = []
    fetch(publish(site), tmp_path, QUIET)
    assert tree(tmp_path) == CONTENT


def test_no_server_is_one_clear_error(tmp_path, site, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    archive = replace(publish(site), url="http://127.0.0.1:9/toy.tar.gz")
    with pytest.raises(SuperbError, match="cannot reach the server"):
        fetch(archive, tmp_path, QUIET)


def test_not_found_says_where_to_put_the_archive_and_uses_it_there(tmp_path, site):
    archive = publish(site)
    data = site.files.pop("toy.tar.gz")
    with pytest.raises(SuperbError, match=r"answers 404 .* put it at .*toy\.tar\.gz, then"):
        fetch(archive, tmp_path, QUIET)
    assert len(site.asked) == 1
    (tmp_path / "toy.tar.gz").write_bytes(data)
    fetch(archive, tmp_path, QUIET)
    assert len(site.asked) == 1
    assert tree(tmp_path) == {**CONTENT, "toy.tar.gz": data}  # the user's own file stays


def test_a_wrong_checksum_unpacks_nothing_and_puts_the_file_aside(tmp_path, site):
    archive = publish(site)
    good = site.files["toy.tar.gz"]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    site.files["toy.tar.gz"] = bad
    with pytest.raises(SuperbError, match=r"SHA-256 is .* not .* aside as .*wrong"):
        fetch(archive, tmp_path, QUIET)
    assert tree(tmp_path) == {"toy.tar.gz.wrong": bad}
    (tmp_path / "toy.tar.gz").write_bytes(bad)
    with pytest.raises(SuperbError, match="Remove it, and the same command"):
        fetch(archive, tmp_path, QUIET)
    (tmp_path / "toy.tar.gz").unlink()
    site.files["toy.tar.gz"] = good
    fetch(archive, tmp_path, QUIET)
    assert tree(tmp_path) == {"toy.tar.gz.wrong": bad, **CONTENT}


def test_an_archive_without_published_checksum_is_unpacked_with_a_warning(tmp_path, site, capsys):
    fetch(replace(publish(site), sha256=None, size=None), tmp_path, Progress(quiet=True))
    assert tree(tmp_path) == CONTENT
    assert "nobody has published a checksum" in capsys.readouterr().err


def test_another_size_than_published_is_refused_before_it_is_downloaded(tmp_path, site):
    archive = publish(site)
    with pytest.raises(SuperbError, match="its owners published 10"):
        fetch(replace(archive, size=10), tmp_path, QUIET)
    assert tree(tmp_path) == {}


def test_too_little_room_is_refused_before_anything_is_asked(tmp_path, site, monkeypatch):
    layout = toy_layout(publish(site))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=200_000))
    with pytest.raises(SuperbError, match=r"has 200,000 bytes free, 3.* are needed"):
        download("toy", layout, tmp_path / "root", [], QUIET)
    assert site.asked == []
    unknown_size = toy_layout(replace(publish(site), size=None))
    with pytest.raises(SuperbError, match="200,000 bytes free"):
        download("toy", unknown_size, tmp_path / "root", [], QUIET)
    assert tree(tmp_path) == {}


def full(*args: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_while_unpacking_keeps_the_archive(tmp_path, site, monkeypatch):
    archive = publish(site)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", full)
        with pytest.raises(SuperbError, match=r"is full.*part keeps"):
            fetch(archive, tmp_path, QUIET)
    assert list(tree(tmp_path)) == ["toy.tar.gz.part"]
    fetch(archive, tmp_path, QUIET)
    assert len(site.asked) == 1
    assert tree(tmp_path) == CONTENT


def test_ctrl_c_keeps_the_part_file_and_says_so(tmp_path, site, monkeypatch, capsys):
    archive = publish(site)
    taken = []

    def interrupted(response: object) -> bytes:
        if taken:
            raise KeyboardInterrupt
        taken.append(response.read(60_000))
        return taken[0]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(archive, tmp_path, QUIET)
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped; " in said
    assert "keeps what came (60,000 bytes)" in said
    fetch(archive, tmp_path, QUIET)
    assert site.asked[-1] == "bytes=60000-"
    assert tree(tmp_path) == CONTENT


def test_ctrl_c_while_unpacking_leaves_nothing_half_unpacked(tmp_path, site, monkeypatch):
    archive = publish(site)

    def interrupted(self: tarfile.TarFile, path: Path, **options: object) -> None:
        (path / "toy").mkdir()
        (path / "toy" / "half.wav").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(archive, tmp_path, QUIET)
    assert list(tree(tmp_path)) == ["toy.tar.gz.part"]


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["../escaped.wav", "toy/../../escaped.wav"])
def test_an_archive_that_reaches_outside_is_not_unpacked(tmp_path, site, pack, name):
    root = tmp_path / "root"
    archive = publish(site, data=pack({**CONTENT, name: b"outside"}))
    with pytest.raises(SuperbError, match="not safe"):
        fetch(archive, root, QUIET)
    assert list(tree(tmp_path)) == ["root/toy.tar.gz.part"]


def test_a_link_that_leads_outside_is_not_unpacked(tmp_path, site):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        link = tarfile.TarInfo("toy/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    with pytest.raises(SuperbError, match="not safe"):
        fetch(publish(site, data=buffer.getvalue()), tmp_path, QUIET)
    assert not (tmp_path / "toy").exists()


def test_what_is_no_archive_says_so(tmp_path, site):
    with pytest.raises(SuperbError, match="cannot be unpacked"):
        fetch(publish(site, data=b"<html>" * 99), tmp_path, QUIET)


def test_a_folder_that_is_there_takes_in_what_is_new(tmp_path, site):
    (tmp_path / "toy" / "one").mkdir(parents=True)
    (tmp_path / "toy" / "one" / "0.wav").write_bytes(b"damaged")
    (tmp_path / "toy" / "mine.txt").write_bytes(b"kept")
    fetch(publish(site), tmp_path, QUIET)
    assert tree(tmp_path) == {**CONTENT, "toy/mine.txt": b"kept"}


def test_a_root_of_the_archives_own_name_is_not_nested(tmp_path, site):
    root = tmp_path / "toy"
    (root / "two").mkdir(parents=True)
    fetch(publish(site), root, QUIET)
    assert tree(tmp_path) == CONTENT
    assert (root / "two").is_dir()


def test_an_archive_may_have_a_folder_of_its_own(tmp_path, site):
    archive = replace(publish(site, data=tar({"yes/a.wav": b"a"})), folder="words_v1")
    fetch(archive, tmp_path, QUIET)
    assert tree(tmp_path) == {"words_v1/yes/a.wav": b"a"}


def test_a_root_that_cannot_be_written_is_named(tmp_path, site):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SuperbError, match=r"cannot write .*file"):
        fetch(publish(site), tmp_path / "file" / "root", QUIET)


# Which archives --------------------------------------------------------------------------------


def toy_layout(*archives: Archive) -> Layout:
    def survey(root: Path) -> Survey:
        if not (root / "toy").is_dir():
            raise SuperbError("no toy there")
        paths = sorted((root / "toy").glob("*/*.wav"))
        return Survey(tuple(Utterance(str(path), path, path.parent.name) for path in paths))

    official = {"one": Official(3), "two": Official(1)}
    return Layout(survey, official, archives, "Ask the owners at https://toy.example.")


def test_only_what_is_wanted_and_not_whole_is_fetched(tmp_path, site, capsys):
    one = publish(site)
    two = replace(
        publish(site, "two.zip", zipped({"toy/two/0.wav": b"0"})), splits=("two",), size=None
    )
    layout = toy_layout(one, two)
    assert download("toy", layout, tmp_path, ["one"], Progress()) == [one]
    assert "toy.tar.gz: " in capsys.readouterr().err
    assert tree(tmp_path) == CONTENT
    assert download("toy", layout, tmp_path, [], Progress()) == [two]
    assert "one: there already, left alone" in capsys.readouterr().err
    asked = len(site.asked)
    assert download("toy", layout, tmp_path, [], QUIET) == []
    assert len(site.asked) == asked
    (tmp_path / "toy" / "one" / "1.wav").unlink()
    assert download("toy", layout, tmp_path, ["one", "two"], QUIET) == [one]
    assert tree(tmp_path) == {**CONTENT, "toy/two/0.wav": b"0"}


def test_an_archive_that_holds_less_than_it_should_is_told(tmp_path, site, capsys):
    layout = toy_layout(publish(site, data=tar({"toy/one/0.wav": b"0"})))
    download("toy", layout, tmp_path, [], QUIET)
    assert "there is less of one under" in " ".join(capsys.readouterr().err.split())


def test_a_corpus_that_may_not_be_downloaded_says_how_to_get_it(tmp_path):
    with pytest.raises(SuperbError, match=r"cannot be downloaded automatically.*Ask the owners"):
        download("toy", toy_layout(), tmp_path / "root", [], QUIET)
    assert not (tmp_path / "root").exists()


def test_an_unknown_split_names_those_there_are(tmp_path, site):
    with pytest.raises(SuperbError, match=r"unknown split of toy 'on'.*Did you mean one"):
        download("toy", toy_layout(publish(site)), tmp_path, ["on"], QUIET)
    assert site.asked == []


def test_without_names_the_defaults_are_fetched_and_all_is_all(tmp_path, site, capsys):
    one = publish(site)
    two = replace(publish(site, "two.zip", zipped({"toy/two/0.wav": b"0"})), splits=("two",))
    layout = replace(toy_layout(one, two), defaults=("two",))
    assert download("toy", layout, tmp_path, [], Progress()) == [two]
    assert "not without --split: one (or all)" in capsys.readouterr().err
    assert download("toy", layout, tmp_path, ["all"], QUIET) == [one]


@pytest.mark.parametrize(
    ("root", "there", "place"),
    [
        ("ls", "dev-clean", "."),
        ("ls", "LibriSpeech/dev-clean", "LibriSpeech"),
        ("ls", None, "LibriSpeech"),
        ("LibriSpeech", None, "."),
    ],
)
def test_librispeech_is_unpacked_where_the_survey_looks(tmp_path, site, root, there, place):
    root = tmp_path / root
    root.mkdir()
    if there is not None:
        (root / there / "1" / "2").mkdir(parents=True)
    new = {f"LibriSpeech/test-clean/3/4/3-4.{end}": b"3-4-0 A" for end in ("trans.txt", "flac")}
    archive = replace(
        publish(site, "test-clean.tar.gz", tar(new)), splits=("test-clean",), top="LibriSpeech"
    )
    layout = replace(librispeech.LAYOUT, archives=(archive,))
    download("librispeech", layout, root, ["test-clean"], QUIET)
    assert (root / place / "test-clean" / "3" / "4" / "3-4.trans.txt").is_file()
    assert {item.parts[-4] for item in librispeech.survey(root).missing} == {"test-clean"}


def test_librispeech_is_not_unpacked_into_one_of_its_splits(tmp_path, site):
    layout = replace(librispeech.LAYOUT, archives=(publish(site),))
    with pytest.raises(SuperbError, match=r"is one split; give the folder above"):
        download("librispeech", layout, tmp_path / "dev-clean", [], QUIET)
    assert site.asked == []
