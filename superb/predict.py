"""From the files of a result to a head that answers, and from recordings to answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from benchmark.answering.restored import RestoredHead, restore
from benchmark.answering.saved import HeadCard, heads_of, mix_of, read_card, read_weights
from benchmark.answers import Answer, Compares, Keeps, Reply
from benchmark.core import Downstream, Upstream, Utterance, at_hop
from benchmark.encoding.forward import FrozenEncoder
from benchmark.encoding.gain import Amplified
from benchmark.errors import AudioError, SuperbError
from benchmark.jobs.site import find_device, head_device, prepare_encoder
from benchmark.progress import Messages, Progress
from benchmark.provenance import provenance
from benchmark.registry import is_target
from benchmark.scoring.results import HEAD_CARD, read_result
from benchmark.source import LIBRARIES
from downstreams import DOWNSTREAMS
from downstreams.load import load_downstream
from downstreams.recogniser import HEADS
from superb.clips import rate_of
from superb.compose import HasHeads, HasLexicon, HasSlots, source_of
from upstreams.loading.load import TORCHAUDIO, UNTRAINED, load_upstream

MOST_PAIRS: Final = 2_000


@dataclass(frozen=True)
class Stated:
    """What a user says of encoder and task, where the files of a head do not say it or may not.

    Attributes:
        upstream: a name, path or object; as it was in the run if None.
        downstream: likewise.
        head: of a task that several heads can do.
        trust_remote_code: whether a checkpoint may run the Python code it brings.
    """

    upstream: str | Upstream | None = None
    downstream: str | Downstream | None = None
    head: str | None = None
    trust_remote_code: bool = False


def load_head(
    result: str | Path,
    *,
    seed: int | None = None,
    fold: str | None = None,
    upstream: str | Upstream | None = None,
    downstream: str | Downstream | None = None,
    head: str | None = None,
    device: str = "auto",
    channel: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> RestoredHead:
    """The head of a result, ready to answer: ``superb.load_head(path)(waveform)``.

    Args:
        result: the JSON file of a result that was made with ``save_heads=True``.
        seed: whose head; that of the first seed if None.
        fold: of a task in folds, the one whose head it is; the first if None.
        upstream: the encoder, where it is another place now, an object, or code of your own.
        downstream: the task, where it is an object or code of your own.
        head: of a task that several heads can do, one that is code of your own.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is of the kind of the run.
        channel: of recordings, the one that is heard; that of the run if None.
        trust_remote_code: let a checkpoint run the Python code it brings, as the run did.
        progress: where warnings of the encoder go; nowhere if None.

    Raises:
        SuperbError: there is no saved head, its files are damaged, or encoder or task are gone or
            have changed.
    """
    path, card = find_card(Path(result).expanduser(), fold)
    stated = Stated(upstream, downstream, head, trust_remote_code)
    try:
        chosen = card.seeds[0] if seed is None else seed
        if chosen not in card.seeds:
            known = ", ".join(map(str, card.seeds))
            raise SuperbError(f"{path} has no head of seed {chosen}; it has those of {known}")
        return _load(path, card, chosen, stated, device, channel, progress or Messages())
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise SuperbError(
            f"{path} is of no head that this version can build ({type(error).__name__}: "
            f"{error!s:.120}). Run again with --save-heads, or use the version that wrote it, "
            f"superb {_written_by(card)}"
        ) from error


def find_card(path: Path, fold: str | None = None) -> tuple[Path, HeadCard]:
    """The card of a head, given the file of its result (or the card itself).

    Raises:
        SuperbError: there is none; the message says what to do.
    """
    if path.name.endswith(HEAD_CARD):
        card = read_card(path)
        if fold not in (None, card.fold):
            own = f"fold {card.fold!r}" if card.fold else "no fold"
            raise SuperbError(f"{path} is of {own}, not of {fold!r}; give the file of the result")
        return path, card
    if path.is_dir() or not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SuperbError(
            f"{path} {what}; give the JSON file of one result, such as "
            "results/asr/hubert/0123456789abcdef.json"
        )
    result = read_result(path, history=False)
    task = result.downstream["name"]
    if result.status == "failed":
        raise SuperbError(f"{path} is of a run that failed: it has no head to answer with")
    if not result.downstream.get("trained", True):
        raise SuperbError(f"{path}: {task} trains no head, so there is none that could answer")
    cards = [(own, read_card(own)) for own in heads_of(path).values()]
    if not cards and path.stem != result.run_id:
        raise SuperbError(
            f"{path} was renamed, and a head goes by the name of its result: name it "
            f"{result.run_id}.json again, beside {result.run_id}*{HEAD_CARD} and its weights"
        )
    if not cards:
        raise SuperbError(
            f"{path} has no saved head: it was made without --save-heads, or copied without "
            f"{path.stem}*{HEAD_CARD} and the weights beside that. If there is none to copy, "
            "delete that file and type its command again with --save-heads, which comes to the "
            "same score"
        )
    folds = [entry["fold"] for entry in result.folds]
    cards.sort(key=lambda pair: folds.index(pair[1].fold) if pair[1].fold in folds else 0)
    by_fold = {card.fold: (own, card) for own, card in cards}
    if any(card.run_id != result.run_id for _, card in cards):
        raise SuperbError(f"the head beside {path} is of another run: one of them was renamed")
    if fold is None:
        return cards[0]
    if fold not in by_fold:
        raise SuperbError(f"{path} has no fold {fold!r}; it has {', '.join(by_fold) or 'none'}")
    return by_fold[fold]


def _load(
    path: Path,
    card: HeadCard,
    seed: int,
    stated: Stated,
    device: str,
    channel: int | None,
    progress: Progress,
) -> RestoredHead:
    identity = card.identity
    weights = read_weights(path, card, seed)
    place = find_device("cpu" if (device, identity["device"]) == ("auto", "cpu") else device)
    if place.partition(":")[0] != identity["device"]:
        progress.warn(
            f"the score was computed on {identity['device']}, this is on {place}: answers may "
            "differ by what they round"
        )
    encoder = _encoder(path, card, stated, place, progress)
    task = _task(path, card, stated)
    task = at_hop(task, encoder.card.hop_samples / encoder.card.sample_rate)
    if isinstance(task, Keeps):
        task = task.with_kept(card.kept[str(seed)])
    training = card.protocol
    return restore(
        FrozenEncoder(
            Amplified(encoder, training["gain_db"]) if training["gain_db"] else encoder,
            place,
            identity["precision"],
        ),
        task,
        mix_of(card),
        weights,
        vocabulary=card.vocabulary,
        settings=training["head"],
        seed=seed,
        storage=identity["storage"],
        half=training["head_precision"] == "bfloat16",
        device=head_device(task, place),
        channel=identity.get("channel") if channel is None else channel,
    )


def _encoder(
    path: Path, card: HeadCard, stated: Stated, device: str, progress: Progress
) -> Upstream:
    """The encoder that the head was trained on, or nothing."""
    typed = card.typed["upstream"]
    name = card.upstream["name"]
    upstream = stated.upstream
    if upstream is None:
        upstream = _followed(path, typed, f"encoder {name}", "--upstream", "upstream")
    if isinstance(upstream, str):
        settings = {} if typed is None else typed["settings"]
        remote = typed is not None and typed["remote"]
        if remote and not stated.trust_remote_code:
            raise SuperbError(
                f"the encoder {name} brings Python code, which the run trusted: add "
                "--trust-remote-code to let it run again"
            )
        try:
            upstream = load_upstream(upstream, stated.trust_remote_code, settings)
        except SuperbError as error:
            raise SuperbError(
                f"the encoder of {path} cannot be loaded: {str(error).rstrip('.')}. If it is "
                "elsewhere now, name it with --upstream"
            ) from error
    found = prepare_encoder(upstream, device, progress)
    wanted = card.identity["upstream"]["fingerprint"]
    if found.fingerprint == wanted:
        return found.upstream
    if found.weights_sha256 is None or found.weights_sha256 != card.encoder_sha256:
        raise SuperbError(
            f"the encoder {found.card.name} is not the one that {path} was trained on: its "
            f"weights, its settings or its own code have changed (fingerprint "
            f"{found.fingerprint[:12]}, it was {wanted[:12]}). Name the one it was with "
            "--upstream, or run again"
        )
    progress.warn(
        f"{found.card.name} has the weights that {path.name} was trained on, computed by "
        f"{_other_versions(card)}: answers may differ from the result's"
    )
    return found.upstream


def _other_versions(card: HeadCard) -> str:
    """What computes an encoder otherwise than it did for a head."""
    then, now = card.provenance["packages"], provenance("")["packages"]
    differ = [f"{lib} {now[lib]} (then {then[lib]})" for lib in LIBRARIES if then[lib] != now[lib]]
    return ", ".join(differ) or "other code"


def _task(path: Path, card: HeadCard, stated: Stated) -> Downstream:
    """The task that the head was trained for, or nothing."""
    typed, identity = card.typed["downstream"], card.identity
    wanted = identity["downstream"]
    name = wanted["name"].rpartition("-")[0] if "labels" in identity else wanted["name"]
    task: Any = stated.downstream
    if task is None:
        task = _followed(path, typed, f"task {name}", "--downstream", "downstream")
    ours = isinstance(task, str) and task in DOWNSTREAMS
    found = load_downstream(task)
    if typed is not None:
        head = stated.head or typed["head"]
        if head not in HEADS and stated.head is None and is_target(head):
            raise SuperbError(
                f"{path}: the head is code, {head}, which is run only if you name it: add "
                f"--head {head}"
            )
        if head and isinstance(found, HasHeads):
            found = found.with_head(head)
        if typed["slots"] and isinstance(found, HasSlots):
            found = found.with_slots(typed["slots"])
    if found.card.name != name:
        raise SuperbError(f"{path} is of the task {name}; got {found.card.name}")
    # words and their phones are part of what such a task has learnt
    lexical = ours and isinstance(found, HasLexicon)
    changed = not lexical and source_of(found) != wanted.get("source", "")
    if changed or found.card.version != wanted["version"]:
        raise SuperbError(
            f"the task {name} is not the one that {path} was trained for: its code or its version "
            "has changed since. Run again with --save-heads"
        )
    return found


def _followed(
    path: Path, typed: Mapping[str, Any] | None, what: str, option: str, keyword: str
) -> str:
    """How a run named its encoder or task, unless that is to run somebody's code."""
    if typed is None:
        raise SuperbError(
            f"{path}: the {what} was handed over as an object; hand it over again, "
            f"superb.load_head(…, {keyword}=…), or name it with {option}"
        )
    name = str(typed["name"]).strip()  # as loaders do: what looks like no code here is none there
    plain = name
    while plain.startswith(UNTRAINED):
        plain = plain.removeprefix(UNTRAINED).strip()
    if is_target(plain) and not plain.startswith(TORCHAUDIO):
        raise SuperbError(
            f"{path}: the {what} is code, {name}, which is run only if you name it: add "
            f"{option} {name}"
        )
    return name


def _written_by(card: HeadCard) -> str:
    return str(card.provenance.get("superb", "?"))


@dataclass(frozen=True)
class Prediction:
    """The answer to a recording, or to two, with what was odd about their audio.

    Attributes:
        answer: what was answered.
        sample_rates: in Hz, of recordings that had to be resampled, by id.
    """

    answer: Answer
    sample_rates: Mapping[str, int]


def answer_all(
    head: RestoredHead, utterances: Sequence[Utterance], advance: Callable[[], None] = lambda: None
) -> tuple[list[Prediction], list[AudioError]]:
    """Answers to recordings, or of a task that compares, to all pairs of them.

    Args:
        head: who answers.
        utterances: the recordings; those that name others in a column ``trials`` are compared
            with these alone.
        advance: called after each.

    Returns:
        The answers, and what is wrong with recordings that could not be used.

    Raises:
        SuperbError: one recording, or far too many, for a task that compares them.
    """
    pairs: list[tuple[str, str]] = []
    if isinstance(head.downstream, Compares):
        pairs = _pairs(utterances)
    answers: list[tuple[tuple[str, ...], Answer]] = []  # with the ids that each is about
    replies: dict[str, Reply] = {}
    rates: dict[str, int] = {}
    bad = []
    for utterance in utterances:
        try:
            if pairs:
                replies[utterance.id] = head.reply(utterance)
            else:
                answers.append(((utterance.id,), head.answer(utterance)))
        except AudioError as error:
            bad.append(error)
        else:
            rate = rate_of(utterance)
            if rate is not None and rate != head.encoder.card.sample_rate:
                rates[utterance.id] = rate
        advance()
    for one, other in dict.fromkeys(pairs):
        if one in replies and other in replies:
            answers.append(((one, other), head.compare(replies[one], replies[other])))
    found = [
        Prediction(answer, {name: rates[name] for name in ids if name in rates})
        for ids, answer in answers
    ]
    return found, bad


def _pairs(utterances: Sequence[Utterance]) -> list[tuple[str, str]]:
    named = [(u.id, other) for u in utterances for other in u.value("trials").split()]
    if named:
        known = {u.id for u in utterances}
        if lacking := [other for _, other in named if other not in known]:
            raise SuperbError(f"a trial with {lacking[0]!r}, which is none of the recordings")
        return named
    if len(utterances) < 2:
        raise SuperbError("this task compares recordings: give two or more")
    pairs = list(combinations([u.id for u in utterances], 2))
    if len(pairs) > MOST_PAIRS:
        raise SuperbError(
            f"{len(utterances)} recordings make {len(pairs)} pairs, of which {MOST_PAIRS} are "
            "compared at most. Give fewer, or a manifest whose column trials names, between "
            "spaces, the ids that each is compared with"
        )
    return pairs
