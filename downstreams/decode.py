"""Decoding with a word n-gram model and a lexicon: flashlight's beam search, through torchaudio.

An optional extra. The decoder and its values are those of the published runs (wav2letter's lexicon
decoder: words from a lexicon, maximum smearing, no log-add, KenLM for the model).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import torch
from torch import Tensor

from benchmark.errors import SuperbError
from benchmark.protocol import LanguageModel
from downstreams.ctc import BLANK
from downstreams.text import normalise

_BOUNDARY = "|"
_SPECIAL = ("<s>", "</s>", "<unk>")


class WordDecoder:
    """From log probabilities of characters to the likeliest words of a lexicon.

    Args:
        model: a word n-gram model, ARPA (perhaps gzipped) or KenLM binary.
        words: the words that can come out, as the model spells them.
        vocabulary: the output symbols of the head, the blank first.
        settings: beam and weights.

    Raises:
        SuperbError: when the extra is not installed, the model cannot be read, or no word can be
            spelled with the symbols.
    """

    def __init__(
        self,
        model: Path,
        words: Iterable[str],
        vocabulary: Sequence[str],
        settings: LanguageModel,
    ) -> None:
        try:
            from torchaudio.models.decoder import ctc_decoder
        except ImportError as error:
            raise SuperbError(
                f"decoding with a language model needs flashlight-text ({error}); type: "
                "pip install 'superb[lm]' (there are wheels for Python 3.11 and 3.12)"
            ) from error
        if " " not in vocabulary:
            raise SuperbError(
                "decoding with a language model needs transcripts of several words in train; "
                "there is no space in these"
            )
        self._boundary = vocabulary.index(" ")
        tokens = [_BOUNDARY if symbol == " " else symbol for symbol in vocabulary]
        lexicon = list(_spelled(words, frozenset(tokens)))
        if not lexicon:
            raise SuperbError("no word of the lexicon can be spelled with the characters of train")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "lexicon.txt"
            path.write_text("".join(lexicon), encoding="utf-8")
            try:
                self._decode = ctc_decoder(
                    lexicon=str(path),
                    tokens=tokens,
                    lm=str(model),
                    beam_size=settings.beam,
                    beam_threshold=settings.beam_threshold,
                    lm_weight=settings.lm_weight,
                    word_score=settings.word_score,
                    blank_token=BLANK,
                    sil_token=_BOUNDARY,
                )
            except RuntimeError as error:
                why = str(error).strip().splitlines()[-1].rstrip(".")  # where in KenLM comes first
                raise SuperbError(
                    f"the language model {model} cannot be used: {why}. Wanted: words, 2-gram or "
                    "longer, in ARPA format or as a KenLM binary"
                ) from error

    def __call__(self, logits: Tensor) -> str:
        """The words of one utterance, from its logits ``[frame, symbol]``."""
        scores = logits.float().log_softmax(dim=-1).cpu()
        # the decoder counts a word once a boundary follows it; so one follows the last word
        end = torch.full((1, scores.shape[1]), scores.min().item() - 1e3)
        end[0, self._boundary] = 0.0
        found = self._decode(torch.cat([scores, end])[None].contiguous())[0]
        return normalise(" ".join(found[0].words)) if found else ""


def read_words(model: Path, lexicon: Path | None) -> list[str]:
    """The words that decoding may find.

    Args:
        model: the language model.
        lexicon: a text file, the word first in each line, whatever follows it; None takes the
            words of the model, if that is in ARPA format.

    Raises:
        SuperbError: when a file cannot be read, or holds no words.
    """
    path = lexicon or model
    try:
        with _open(path) as file:
            words = list(_unigrams(file) if lexicon is None else _first_column(file))
    except (OSError, UnicodeDecodeError, EOFError) as error:
        binary = isinstance(error, UnicodeDecodeError) and lexicon is None
        hint = "a KenLM binary needs --lexicon FILE, a word per line" if binary else str(error)
        raise SuperbError(f"no words can be read from {path}: {hint}") from error
    if not words:
        hint = "it is no ARPA file; give the words with --lexicon FILE" if lexicon is None else ""
        raise SuperbError(f"{path} holds no words{'; ' if hint else ''}{hint}")
    return list(dict.fromkeys(words))


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _unigrams(lines: Iterable[str]) -> Iterator[str]:
    """The words of the section ``\\1-grams:`` of an ARPA file: log probability, word, back-off."""
    within = False
    for line in lines:
        text = line.strip()
        if text.startswith("\\"):
            if within:
                return
            within = text == "\\1-grams:"
        elif within and text:
            parts = text.split()
            if len(parts) > 1 and parts[1] not in _SPECIAL:
                yield parts[1]


def _first_column(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        parts = line.split(maxsplit=1)
        if parts and parts[0] not in _SPECIAL:
            yield parts[0]


def _spelled(words: Iterable[str], tokens: frozenset[str]) -> Iterator[str]:
    """Lines of a lexicon: a word, and its characters with a boundary after them."""
    for word in words:
        spelling = list(normalise(word))
        if spelling and _BOUNDARY not in spelling and tokens.issuperset(spelling):
            yield f"{word} {' '.join([*spelling, _BOUNDARY])}\n"
