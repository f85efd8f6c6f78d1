"""Query by example: its searches, records and checks."""

import pytest
import torch

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.metrics import score
from downstreams.corpora import mini
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from downstreams.qbe import roles

QBE = load_downstream("qbe")


def utterance(name, role, term, split="test", speaker=""):
    return Utterance(name, b"", split, speaker, columns={"role": role, "term": term})


def searched(speakers=True):
    """Two queries of each of four words, in documents that hold two words each."""
    draw = torch.Generator().manual_seed(0)
    words = {name: torch.randn(8, 5, generator=draw) for name in ("one", "two", "six", "ten")}
    names = list(words)
    utterances, states = [], []
    for place in range(8):
        word = names[place % 4]
        who = f"s{place % 3}" if speakers else ""
        utterances.append(utterance(f"q{place}", "query", word, speaker=who))
        states.append(words[word] + 0.1 * torch.randn(8, 5, generator=draw))
    for place in range(24):
        held = [names[place % 4], names[(place // 4 + place) % 4]]
        who = f"s{place % 5}" if speakers else ""
        utterances.append(utterance(f"d{place}", "document", "; ".join(held), speaker=who))
        parts = [torch.randn(20, 5, generator=draw), *(words[word] for word in held)]
        states.append(torch.cat([*parts, torch.randn(9, 5, generator=draw)]))
    return [7 + 3 * own for own in states], utterances


def test_a_search_finds_the_words():
    states, utterances = searched()
    answers = QBE.search(states, utterances)
    assert [answer is None for answer in answers] == [False] * 8 + [True] * 24
    found = torch.tensor(answers[:8])
    assert found.shape == (8, 24)
    assert found.mean(dim=1).abs().max() < 1e-6
    assert found.std(dim=1, correction=0).numpy() == pytest.approx(1)
    records = QBE.records(utterances, answers)
    assert score(records, QBE.card.metric) > 90


def test_features_are_standardised_by_dimension():
    """Scale and shift of a dimension change nothing, nor does one that never varies."""
    states, utterances = searched()
    scale, shift = torch.tensor([[1.0, 5.0, 0.2, 9.0, 1.0], [0.0, 3.0, -2.0, 0.0, 50.0]])
    stretched = [torch.cat([own * scale + shift, own[:, :1] * 0 + 0.1], dim=1) for own in states]
    plain, other = (torch.tensor(QBE.search(own, utterances)[:8]) for own in (states, stretched))
    assert torch.allclose(plain, other, atol=1e-3)


def test_records_are_trials_of_a_query_in_a_document():
    states, utterances = searched()
    answers = QBE.search(states, utterances)
    records = QBE.records(utterances, answers)
    assert len({record.id for record in records}) == len(records) == 8 * 24
    first = records[0]
    assert (first.id, first.clusters, first.reference) == ("q0|d0", ("s0",), "yes")
    assert records[1].clusters == ("s0", "s1")
    assert first.hypothesis == f"{answers[0][0]:.3f}"
    assert first.values["mtwv"][:2] == (pytest.approx(answers[0][0], abs=1e-6), 1)
    terms = {record.id.partition("|")[0]: record.values["mtwv"][2] for record in records}
    assert len(set(terms.values())) == 4
    assert terms["q0"] == terms["q4"]
    assert {record.reference for record in records} == {"yes", "no"}


def test_queries_and_documents_stand_for_speakers_who_are_not_known():
    states, utterances = searched(speakers=False)
    records = QBE.records(utterances, QBE.search(states, utterances))
    assert records[1].clusters == ("q0", "d1")
    assert QBE.test_notes(utterances, ()) == [
        "speakers are not known: queries and documents stand for them"
    ]


def test_terms_that_no_document_holds_are_told():
    utterances = [
        utterance("q", "query", "one", speaker="s"),
        utterance("r", "query", "zero", speaker="s"),
        utterance("d", "document", "one;two", speaker="t"),
    ]
    assert QBE.test_notes(utterances, ()) == ["terms that no test document holds, left out: 'zero'"]


def changed(**of):
    """Data that can be searched, but for the rows whose role and term are given."""
    rows = {
        f"{split}-{name}": (split, role, term)
        for split in ("valid", "test")
        for name, role, term in (("q", "query", "one"), ("d", "document", "one;two"))
    }
    rows |= {
        name.replace("_", "-"): (name.partition("_")[0], *row) for name, row in of.items() if row
    }
    gone = {name.replace("_", "-") for name, row in of.items() if not row}
    return [
        utterance(name, role, term, split)
        for name, (split, role, term) in rows.items()
        if name not in gone
    ]


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ({"test_q": ("question", "one")}, "cannot be searched: test-q: role 'question', term 'one"),
        ({"valid_d": ("", "one")}, "valid-d: role ''.*'role' holds query or document"),
        ({"test_q": ("query", " ; ")}, "test-q: role 'query', term ' ; '.*the one term of a query"),
        ({"test_q": ("query", "one;two")}, "test-q: role 'query', term 'one;two'"),
        ({"test_q": None}, "no query in split test"),
        ({"valid_d": None}, "no document in split valid"),
        ({"test_q": ("query", "One")}, "no document of test holds .* 'One'; documents hold 'one'"),
    ],
)
def test_data_that_cannot_be_searched(of, says):
    QBE.check_data(changed())
    with pytest.raises(SuperbError, match=says):
        QBE.check_data(changed(**of))


def test_own_data_have_the_columns_role_and_term(tmp_path):
    rows = [
        f"{name}.wav,{split},{row}"
        for split in ("train", "valid", "test")
        for name, row in ((f"{split}-q", "query,one"), (f"{split}-d", "document,one;two"))
    ]
    for row in rows:
        (tmp_path / row.partition(",")[0]).touch()
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["audio,split,role,term", *rows]))
    corpus = load_corpus(str(path), QBE.card)
    QBE.check_data(corpus.utterances)
    assert corpus.split("test")[1].columns == {"role": "document", "term": "one;two"}
    path.write_text(path.read_text().replace("query,one", "query,"))
    with pytest.raises(SuperbError, match="empty 'term'"):
        load_corpus(str(path), QBE.card)


def test_mini_is_searched_by_keywords():
    corpus = mini.load("qbe")
    QBE.check_data(corpus.utterances)
    speakers = [{u.speaker for u in corpus.split(split)} for split in ("valid", "test")]
    assert not corpus.split("train")
    assert sum(map(len, speakers)) == len(set.union(*speakers))
    texts = {u.id: u.text for u in mini.load("asr").utterances}
    for split in ("valid", "test"):
        queries, documents = roles(corpus.split(split))
        assert len({(u.speaker, u.value("term")) for u in queries}) == len(queries) >= 28
        assert {"on", "off", "no", "seven", "window"} < {u.value("term") for u in queries}
        assert len(documents) >= 100
        spoken = [u for u in documents if u.id in texts]
        assert all(u.value("term").split(";") == texts[u.id].split() for u in spoken)
        assert 0 < len(spoken) < len(documents)
    assert QBE.test_notes(corpus.split("test"), ()) == []


def test_a_query_longer_than_every_document_is_refused():
    states, utterances = searched()
    states[0] = states[0].repeat(9, 1)
    with pytest.raises(SuperbError, match="longer than every document of test: 'q0'"):
        QBE.search(states, utterances)


@pytest.mark.parametrize("role", ["query", "document"])
def test_nothing_is_left_to_search(role):
    states, utterances = searched()
    pairs = [(own, u) for own, u in zip(states, utterances, strict=True) if u.value("role") != role]
    with pytest.raises(SuperbError, match=f"no {role} of test is left to search"):
        QBE.search([own for own, _ in pairs], [u for _, u in pairs])
