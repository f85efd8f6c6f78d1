"""The log of many writers: every whole block is taken once, in order, and nothing else ever."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.encoding.segments import OwnFile, SegmentReader, block

BLOCKS = [(b"rows", b"one"), (b"time", b""), (b"rows", bytes(range(256)))]


def taken(reader):
    found = []
    reader.refresh(lambda *block: found.append(block) or True)
    return found


def write(folder, name, blocks):
    (folder / f"{name}.log").write_bytes(b"".join(block(*each) for each in blocks))


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.binary(min_size=4, max_size=4), st.binary(max_size=60)),
        st.none(),
    ),
    max_size=20,
)


@settings(max_examples=50, deadline=None)
@given(steps)
def test_every_block_is_taken_once_and_in_order(tmp_path_factory, steps):
    """Some writers append, and a reader looks now and then."""
    folder = tmp_path_factory.mktemp("log")
    files = [OwnFile(folder / f"{name}.log") for name in "abc"]
    reader, found = SegmentReader(folder), []
    for step in [*steps, None]:
        if step is None:
            found += taken(reader)
        else:
            writer, tag, payload = step
            files[writer].write(block(tag, payload))
    for file in files:
        file.close()
    assert taken(reader) == []
    for writer, name in enumerate("abc"):
        expected = [step[1:] for step in steps if step is not None and step[0] == writer]
        assert [block[1:] for block in found if block[0] == name] == expected
    # whoever comes later finds the same, by writer
    assert taken(SegmentReader(folder)) == sorted(found, key=lambda block: block[0])


def test_a_torn_block_is_none_until_it_is_whole(tmp_path):
    write(tmp_path, "a", BLOCKS)
    whole = (tmp_path / "a.log").read_bytes()
    before = sum(len(block(*each)) for each in BLOCKS[:-1])
    for length in range(before, len(whole)):
        (tmp_path / "a.log").write_bytes(whole[:length])
        reader = SegmentReader(tmp_path)
        assert [found[1:] for found in taken(reader)] == BLOCKS[:-1]
        # zeros come after some kinds of crash
        (tmp_path / "a.log").write_bytes(whole[:length] + bytes(len(whole)))
        assert taken(reader) == []
    (tmp_path / "a.log").write_bytes(whole)
    assert [found[1:] for found in taken(reader)] == BLOCKS[-1:]


def test_no_flipped_bit_is_taken(tmp_path):
    write(tmp_path, "a", BLOCKS)
    whole = (tmp_path / "a.log").read_bytes()
    first = len(block(*BLOCKS[0]))
    for place in range(first, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "a.log").write_bytes(damaged)
        found = [block[1:] for block in taken(SegmentReader(tmp_path))]
        assert found == BLOCKS[: 1 if place < first + len(block(*BLOCKS[1])) else 2]


def test_what_is_refused_is_offered_again(tmp_path):
    write(tmp_path, "a", BLOCKS)
    write(tmp_path, "b", BLOCKS)
    reader, found = SegmentReader(tmp_path), []
    reader.refresh(lambda *block: block[0] == "b" and (found.append(block) or True))
    assert found == [("b", *each) for each in BLOCKS]
    assert taken(reader) == [("a", *each) for each in BLOCKS]


def test_what_is_skipped_or_deleted_is_not_read(tmp_path):
    for name in "abc":
        write(tmp_path, name, BLOCKS[:1])
    (tmp_path / "other.txt").write_bytes(block(*BLOCKS[0]))
    reader = SegmentReader(tmp_path)
    reader.skip("a")

    def take(name, tag, payload):
        (tmp_path / "c.log").unlink(missing_ok=True)
        return name == "b"

    reader.refresh(take)
    assert taken(reader) == []
    with pytest.raises(FileNotFoundError):
        SegmentReader(tmp_path / "gone").refresh(take)


def test_what_a_full_disk_cut_off_is_written_over(tmp_path, monkeypatch):
    file, reader, pwrite, room = (
        OwnFile(tmp_path / "a.log"),
        SegmentReader(tmp_path),
        os.pwrite,
        [7],
    )

    def full(handle, data, offset):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data[: room.pop()], offset) + bool(room.append(0))

    assert file.write(block(*BLOCKS[0])) == 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            file.write(block(*BLOCKS[2]))
    assert taken(reader) == [("a", *BLOCKS[0])]
    assert file.write(block(*BLOCKS[1])) == len(block(*BLOCKS[0]))
    file.close()
    assert taken(reader) == [("a", *BLOCKS[1])]


def test_nobody_writes_to_a_file_of_another(tmp_path):
    write(tmp_path, "a", BLOCKS)
    with pytest.raises(FileExistsError):
        OwnFile(tmp_path / "a.log").write(b"mine")
