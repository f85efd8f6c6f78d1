"""What turns frames into symbols: the recognisers that speech recognition can be done by.

A recogniser knows nothing of words: its symbols are places in a vocabulary whose first is its own
(`downstreams.ctc.BLANK`), for the blank of CTC and of the transducer, or the end of a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from benchmark.errors import SuperbError, unknown
from benchmark.registry import is_target, load_attribute, load_object, plugins
from downstreams import ctc

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

HEADS: Final[dict[str, str]] = {
    "ctc": "downstreams.recogniser:Ctc",
    "attention": "downstreams.attention:Attention",
    "transducer": "downstreams.transducer:Transducer",
    "hmm": "downstreams.hmm:Hybrid",
    "gmm-hmm": "downstreams.gmm_hmm:Classical",
}
"""Name → ``module:attribute``, as the entry points of a plug-in have it."""
GROUP: Final = "superb.heads"


@runtime_checkable
class Recogniser(Protocol):
    """A head, how it learns, and how it answers.

    Attributes:
        name: as typed after ``--head``.
        title: what it is made of, in words, for the list of tasks.
        settings: its sizes for little data; a protocol may name others.
    """

    name: str
    title: str
    settings: Mapping[str, Any]

    def module(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """What is trained: frames ``[utterance, frame, dim]`` and lengths to what `loss` reads."""
        ...

    def loss(
        self,
        heard: Any,  # noqa: ANN401 - whatever its module gives
        lengths: Tensor,
        targets: Sequence[Sequence[int]],
    ) -> Tensor:
        """Per symbol, averaged over the batch; targets that cannot fit contribute nothing."""
        ...

    def transcribe(
        self,
        heard: Any,  # noqa: ANN401 - whatever its module gives
        lengths: Tensor,
    ) -> list[list[int]]:
        """The symbols of each utterance, without the first of the vocabulary."""
        ...

    def notes(
        self,
        targets: Sequence[Sequence[str]],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """What a reader must know, such as transcripts that cannot fit."""
        ...


@runtime_checkable
class Attends(Recogniser, Protocol):
    """A head that can tell which frames it looked at."""

    def looked_at(
        self,
        heard: Any,  # noqa: ANN401 - whatever its module gives
        lengths: Tensor,
        said: Sequence[Sequence[int]],
    ) -> list[tuple[tuple[float, ...], ...]]:
        """The weights of each symbol of each answer ``[symbol][frame]``."""
        ...


@runtime_checkable
class Times(Recogniser, Protocol):
    """A head that knows when it heard each symbol, and how sure it was."""

    def heard(
        self,
        heard: Any,  # noqa: ANN401 - whatever its module gives
        lengths: Tensor,
    ) -> list[list[ctc.Heard]]:
        """The symbols of `transcribe`, with their frames."""
        ...

    def frame_s(self, hop_s: float, settings: Mapping[str, Any]) -> float:
        """Seconds of a frame of the head, of an encoder's and its settings."""
        ...


class Ctc:
    """CTC over a recurrent head, greedy: what SUPERB has for speech recognition."""

    name = "ctc"
    title = "linear, 2-layer BLSTM, linear; character CTC, greedy"
    settings: Mapping[str, Any] = ctc.RECURRENT_HEAD

    def module(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """Linear, BLSTM layers, linear; settings as in `ctc.RECURRENT_HEAD`."""
        from downstreams.heads import RecurrentTranscriber

        return RecurrentTranscriber.of(dim, hop_s, outputs, settings, generator)

    def loss(self, heard: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """CTC loss per symbol."""
        return ctc.loss(heard, lengths, targets)

    def transcribe(self, heard: Tensor, lengths: Tensor) -> list[list[int]]:
        """The symbols of the best path."""
        best = heard.argmax(dim=-1).cpu()
        return [
            [place for place, _ in groupby(path[:length].tolist()) if place != 0]
            for path, length in zip(best, lengths.tolist(), strict=True)
        ]

    def heard(self, heard: Tensor, lengths: Tensor) -> list[list[ctc.Heard]]:
        """The symbols of the best path, with their frames."""
        return ctc.heard(heard, lengths)

    def frame_s(self, hop_s: float, settings: Mapping[str, Any]) -> float:
        """Seconds of the frames that are stacked."""
        return ctc.stacked(hop_s, settings) * hop_s

    def notes(
        self,
        targets: Sequence[Sequence[str]],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the transcripts that are too long for their frames."""
        return ctc.too_long("characters", targets, lengths, hop_s, ctc.stacked(hop_s, settings))


def head_names() -> list[str]:
    """All names of heads, those of plug-ins too."""
    return [*HEADS, *plugins(GROUP, HEADS, "head")]


def load_head(head: str) -> Any:  # noqa: ANN401 - a recogniser, or a task of either kind
    """The head of a name of the table or of a plug-in, or of ``path.py:Name`` and its like.

    It is a recogniser, or a whole task that recognises speech in its own way, whose card says that
    it is a kind of ``asr``.

    Raises:
        SuperbError: there is none (with near matches), its code fails, or it is none.
    """
    name = head.strip()
    installed = plugins(GROUP, HEADS, "head")
    target = HEADS.get(name) or installed.get(name) or (name if is_target(name) else "")
    if not target:
        raise unknown(
            "head",
            name,
            head_names(),
            "Other forms: my_head.py:MyHead, package.module:MyHead.",
        )
    found = load_object(target, "head")
    own = getattr(found, "name", None) or getattr(getattr(found, "card", None), "name", "")
    ours = HEADS.get(str(own).removeprefix("asr-"))
    if ours and type(found) is not load_attribute(ours):
        raise SuperbError(
            f"the head {name} calls itself {own!r}, which is one of ours; give it a name of its own"
        )
    if getattr(getattr(found, "card", None), "base", "") == "asr":
        return found
    if not isinstance(found, Recogniser):
        raise SuperbError(
            f"{name} gives {type(found).__name__}, which is no head: it needs name, title, "
            "settings, module, loss, transcribe and notes. See docs/adding-a-task.md"
        )
    return found
