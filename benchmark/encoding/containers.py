"""Whether an audio file is whole by what its container says, where its decoder would not notice.

libsndfile decodes a cut MP3 or Ogg file to where it ends, and one with lost pages or two streams to
some other place. What is known of the length is written in the files all the same: in the headers
of their frames and pages, whose numbers and checksums have to be right.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache
from mmap import mmap
from typing import Final, Literal

Reason = Literal["truncated", "unreadable"]

_TRUNCATED: Final = "its header promises more audio than the file holds; copy or download it again"
_BAD_PAGE: Final = "a page is damaged or lost; copy or download it again"
_CONVERT: Final = "convert it to FLAC or WAV"
# What is often met under the name of audio.
_STRANGERS: Final = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the audio: git lfs pull"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page, not audio: download it again"),
    (rb"PK\x03\x04", "a ZIP archive: unpack it"),
    (rb"\x1f\x8b", "gzip-compressed: unpack it"),
    (rb"....ftyp", f"MP4 (AAC): {_CONVERT}"),
    (rb"\x1aE\xdf\xa3", f"WebM or Matroska: {_CONVERT}"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", f"AAC: {_CONVERT}"),
    (rb"ajkg", f"compressed by shorten: {_CONVERT}"),
    (rb"#!AMR", f"AMR: {_CONVERT}"),
)
_STRANGER: Final = tuple(
    (re.compile(start, re.IGNORECASE | re.DOTALL), what) for start, what in _STRANGERS
)


@dataclass(frozen=True)
class Fault:
    """Why a file cannot be decoded whole: for counting, and in words with what to do."""

    reason: Reason
    words: str


def find_fault(data: bytes | mmap) -> Fault | None:
    """What is wrong with a file by its own framing; None for nothing, or for other containers.

    Args:
        data: all of it.
    """
    head = data[:64]
    for start, what in _STRANGER:
        if start.match(head):
            return Fault("unreadable", f"it is {what}")
    if head[:4] == b"OggS":
        return _ogg(data)
    if is_mpeg(head):
        return _mpeg(data)
    if head[:7] == b"NIST_1A":
        return _nist(data)
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return _wave(data)
    return None


def is_mpeg(head: bytes) -> bool:
    """Whether a file starts like MP3, by itself or inside WAV."""
    # Any sync word, also before a header that is none: libmpg123 searches on, and talks.
    bare = head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    return bare or (head[8:16] == b"WAVEfmt " and head[20:22] == b"U\0")


# MPEG audio (ISO/IEC 11172-3 and 13818-3, section 2.4.2.3) ---------------------------------------

_KBITS: Final = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ: Final = (44_100, 48_000, 32_000)


@cache
def _frame(second: int, third: int) -> tuple[int, int] | None:
    """Bytes and kbit/s of the frame whose header has these second and third bytes."""
    version, layer = {3: 1, 2: 2, 0: 4}.get(second >> 3 & 3, 0), 4 - (second >> 1 & 3)
    rate, hertz, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if second < 0xE0 or not version or layer == 4 or not 0 < rate < 15 or hertz == 3:
        return None
    kbits = _KBITS[min(version, 2), layer if version == 1 else min(layer, 2)][rate - 1]
    per_second = _HERTZ[hertz] // version
    if layer == 1:
        return (12_000 * kbits // per_second + padding) * 4, kbits
    samples = 576 if layer == 3 and version > 1 else 1152
    return samples // 8 * 1000 * kbits // per_second + padding, kbits


def _tag(data: bytes | mmap, at: int) -> int:
    """The size of a tag that stands between or behind frames; 0 for none."""
    start = data[at : at + 10]
    if start[:3] == b"ID3" and len(start) == 10:
        size = 0
        for byte in start[6:]:
            size = size << 7 | byte & 0x7F
        return size + 10
    if start[:3] == b"TAG":
        return 128
    if start[:8] == b"APETAGEX":
        return int.from_bytes(data[at + 12 : at + 16], "little") + 32
    return len(data) - at if start == b"LYRICSBEGI" else 0


def _mpeg(data: bytes | mmap) -> Fault | None:
    """Count the frames, and compare with the number in the first one, if an encoder left it."""
    at, end, frames, rates, length = 0, len(data), 0, set(), 0
    declared = None
    while at < end - 3:
        found = _frame(data[at + 1], data[at + 2]) if data[at] == 0xFF else None
        if found is None:
            size = _tag(data, at)
            if not size and not frames and data[at] == 0:
                size = 1  # what a tag was padded with
            if not size:
                break
            at += size
            continue
        length, kbits = found
        if at + length > end:
            return Fault("truncated", f"it ends within a frame; {_TRUNCATED.partition('; ')[2]}")
        if not frames:
            declared = _declared(data[at : at + length])
        elif declared is None:
            rates.add(kbits)
        frames += 1
        at += length
    if end - at > max(length, 3):
        return Fault("unreadable", f"from byte {at} on it is no MP3; copy or download it again")
    if declared is None:
        # libmpg123 takes the length from the size at the rate of the first frame
        words = f"MP3 of variable bitrate without a note of its length: {_CONVERT}"
        return Fault("unreadable", words) if len(rates) > 1 else None
    if declared > frames:  # some encoders count the frame that holds the number
        return Fault("truncated", _TRUNCATED)
    if declared < frames - 2:
        words = f"it holds {frames - 1} frames of MP3, its header says {declared}: {_CONVERT}"
        return Fault("unreadable", words)
    return None


def _declared(frame: bytes) -> int | None:
    """How many frames follow, by the note of the Xing or Fraunhofer encoder."""
    for name, at in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        place = frame.find(name, 4, 64)
        if place > 0 and (name == b"VBRI" or frame[place + 7] & 1):
            return int.from_bytes(frame[place + at : place + at + 4], "big")
    return None


# Ogg (RFC 3533) ----------------------------------------------------------------------------------

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: that of zlib, with all bits in the other order."""
    unset = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(unset.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def _ogg(data: bytes | mmap) -> Fault | None:
    """Go from page to page: all there, in order, of one stream, and the last one marked so."""
    at, end, count, flags, serial = 0, len(data), 0, 0, b""
    # libsndfile may read for ever in Vorbis of which a page is damaged; in Opus it notices
    summed = data[28:35] == b"\x01vorbis"
    while at < end:
        table = at + 27 + (data[at + 26] if at + 27 <= end else 0)
        size = table - at + sum(data[at + 27 : table])
        if at + size > end:
            return Fault("truncated", f"it ends within a page; {_TRUNCATED.partition('; ')[2]}")
        page = data[at : at + size]
        flags = page[5]
        if page[:4] != b"OggS" or (
            summed and int.from_bytes(page[22:26], "little") != _checksum(page)
        ):
            return Fault("unreadable", _BAD_PAGE)
        if count and page[14:18] != serial:
            return Fault("unreadable", f"it holds several Ogg streams: {_CONVERT}")
        if int.from_bytes(page[18:22], "little") != count:
            return Fault("unreadable", _BAD_PAGE)
        serial, count, at = page[14:18], count + 1, at + size
    if not flags & 4:
        return Fault("truncated", "its last page is not there; copy or download it again")
    return None


# NIST SPHERE and WAV -----------------------------------------------------------------------------


def _nist(data: bytes | mmap) -> Fault | None:
    """Compare the number of samples in the header with the size of what follows it."""
    size = int(data[8:16]) if data[8:16].strip().isdigit() else 1024
    fields = dict(re.findall(rb"^(\w+) -\S+ (.*?)\s*$", data[:size], re.MULTILINE))
    if b"shorten" in fields.get(b"sample_coding", b""):
        words = "it is SPHERE compressed by shorten: decompress it, as with sph2pipe -f wav"
        return Fault("unreadable", words)
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if not all(fields.get(name, b"").isdigit() for name in names):
        return Fault("unreadable", f"its header does not say how long it is: {_CONVERT}")
    samples, channels, width = (int(fields[name]) for name in names)
    whole = len(data) - size >= samples * channels * width
    return None if whole else Fault("truncated", _TRUNCATED)


def _wave(data: bytes | mmap) -> Fault | None:
    """Look behind the samples: more of them, where the header says that they are over?"""
    at, end = 12, len(data)
    order: Literal["big", "little"] = "big" if data[:4] == b"RIFX" else "little"
    while at + 8 <= end and data[at : at + 4] != b"data":
        at += 8 + (size := int.from_bytes(data[at + 4 : at + 8], order)) + size % 2
    said = int.from_bytes(data[at + 4 : at + 8], order)
    place = at + 8 + said + said % 2
    behind = data[place : place + 64]
    if len(behind) < 8 or (re.match(rb"[ -~]{4}", behind) and said):  # another chunk
        return None
    if not said or any(behind):
        words = (
            f"its header says {said} bytes of audio, and {end - at - 8} follow: whoever wrote it "
            "did not finish. Write it again, with its length"
        )
        return Fault("unreadable", words)
    return None
