import pytest

from leaderboard.read.published import PUBLISHED_CORPORA, load_published
from upstreams.catalogue import UPSTREAMS


def figures(kind="score"):
    return [figure for figure in load_published() if figure.figure == kind]


def test_every_figure_has_a_source_and_every_inference_is_marked():
    assert figures()
    assert all(figure.source for figure in load_published())
    assert all(figure.inferred == (figure.layer == "last") for figure in figures())
    assert {figure.layer for figure in figures()} == {"last", "weighted-sum"}
    rows = [(f.row, f.task, f.metric, f.layer) for f in figures()]
    assert len(rows) == len(set(rows))


def test_names_of_ours_exist_and_are_as_large():
    for figure in figures():
        if figure.upstream:
            ours = UPSTREAMS[figure.upstream].parameters / 1e6
            assert ours == pytest.approx(figure.parameters_millions or 0, rel=0.02), figure


def test_corpora_are_those_of_the_data_folder():
    from downstreams.corpora import (
        CORPORA,
        audio_snips,
        fluent_speech_commands,
        iemocap,
        libri2mix,
        librispeech,
        quesst14,
        speech_commands,
        voxceleb1,
    )

    assert {corpus.name for corpus in PUBLISHED_CORPORA.values()} <= set(CORPORA)
    assert {task: corpus.test_utterances for task, corpus in PUBLISHED_CORPORA.items()} == {
        "asr": librispeech.OFFICIAL["test-clean"].utterances,
        "sid": voxceleb1.OFFICIAL["test"].utterances,
        "ks": speech_commands.OFFICIAL_V1["test"].utterances,
        "pr": librispeech.OFFICIAL["test-clean"].utterances,
        "ic": fluent_speech_commands.OFFICIAL["test"].utterances,
        "sf": audio_snips.OFFICIAL["test"].utterances,
        "er": sum(session.utterances for session in iemocap.OFFICIAL.values()),
        "asv": 37_720,
        "sd": libri2mix.OFFICIAL["test"].utterances,
        "qbe": quesst14.OFFICIAL["documents"].utterances * quesst14.OFFICIAL["eval"].utterances,
    }


@pytest.mark.parametrize(
    ("row", "task", "layer", "value"),
    [
        ("hubert_base", "asr", "weighted-sum", 6.42),
        ("hubert_base", "asr", "last", 6.74),
        ("hubert_base", "sid", "weighted-sum", 81.42),
        ("hubert_base", "sid", "last", 64.84),
        ("wavlm_large", "ks", "weighted-sum", 97.86),
        ("fbank with CMVN", "sid", "weighted-sum", 0.085),
    ],
)
def test_spot_checks(row, task, layer, value):
    (found,) = [
        figure
        for figure in figures()
        if (figure.row, figure.task, figure.layer) == (row, task, layer)
        and figure.metric in ("wer", "accuracy")
    ]
    assert found.value == value
