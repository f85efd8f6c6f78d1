from leaderboard.show.report.audio import embed


def test_recordings_stop_at_the_limit():
    audio = b"OggS" + bytes(296)
    wanted = [(str(place), audio) for place in range(5)]
    assert list(embed(wanted, limit_bytes=1000)) == ["0", "1"]
    assert embed([("a", b"????"), ("b", audio), ("b", audio)]).keys() == {"b"}
