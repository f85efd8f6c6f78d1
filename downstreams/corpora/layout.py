"""What is known of a corpus that a user has on disk: official figures, archives, and a survey."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from benchmark.core import Utterance
from benchmark.errors import SuperbError, unknown
from downstreams.corpora import CorpusOptions, refuse_options


@dataclass(frozen=True)
class Official:
    """What one split holds by the corpus's own account; None where it does not say.

    Attributes:
        utterances: recordings.
        speakers: people.
        hours: of audio.
    """

    utterances: int
    speakers: int | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Archive:
    """A file that the corpus's owners publish.

    Attributes:
        url: where.
        sha256: of the file, in hexadecimal; None where nobody has published one.
        size: in bytes; None where nobody has published it.
        folder: the folder to unpack it in, under the base (`Layout.base`); "" for the base itself.
        splits: which of the corpus's own splits are in it.
        top: a folder that all of it is in and that is left away; "" where there is none.
    """

    url: str
    sha256: str | None
    size: int | None
    folder: str
    splits: tuple[str, ...]
    top: str = ""


@dataclass(frozen=True)
class Survey:
    """What is there, by names alone: no audio has been opened.

    Attributes:
        utterances: recordings that are present and wanted, each with the corpus's *own* name of
            its split.
        missing: path, relative to the root, of audio that a list or transcript names and that is
            not there → its split.
        extra: path, relative to the root, of audio that no list or transcript names → its split,
            or "".
        rate: sample rate in Hz that all files should have.
        disjoint: pairs of the corpus's own splits that may have no speaker in common.
        notes: what else a user should be told, e.g. a list that is not there.
        sources: audio that is no utterance but that the corpus cuts some from.
    """

    utterances: tuple[Utterance, ...]
    missing: dict[Path, str] = field(default_factory=dict)
    extra: dict[Path, str] = field(default_factory=dict)
    rate: int = 16_000
    disjoint: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A corpus under the layout in which its owners publish it.

    Attributes:
        survey: from the data root to what is there; raises SuperbError where nothing is.
        official: the corpus's own name of a split → what it should hold.
        archives: what can be downloaded without asking anybody; empty where nothing can.
        obtain: how to get it, in one sentence.
        defaults: the corpus's own splits that are downloaded unless others are named; empty for
            all.
        base: from the data root to the folder that archives are unpacked in, which is where the
            survey will look; raises SuperbError where it would not. None for the root itself.
    """

    survey: Callable[[Path], Survey]
    official: Mapping[str, Official]
    archives: tuple[Archive, ...]
    obtain: str
    defaults: tuple[str, ...] = ()
    base: Callable[[Path], Path] | None = None


def data_root(name: str, options: CorpusOptions, obtain: str) -> Path:
    """The folder that a user gave.

    Raises:
        SuperbError: none was given, or there is no such folder; says how to get the corpus.
    """
    if options.data_root is None:
        raise SuperbError(
            f"corpus {name!r} is not bundled: add --data-root FOLDER, where it lies. {obtain}"
        )
    if not options.data_root.is_dir():
        raise SuperbError(
            f"--data-root {options.data_root} is no folder; give that of {name}. {obtain}"
        )
    return options.data_root


def not_found(name: str, root: Path, wanted: str, obtain: str) -> SuperbError:
    """The error for a data root without the corpus: what was wanted, and what is there instead."""
    if not root.is_dir():
        return SuperbError(f"no {name} in {root}: there is no such folder. {obtain}")
    return SuperbError(f"no {name} in {root}: wanted {wanted}; it holds {holds(root)}. {obtain}")


def holds(folder: Path, most: int = 8) -> str:
    """What is in a folder, in words: the first few names."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(names[:most]) + more) if names else "nothing"


def official_root(
    name: str, task: str, only: str, options: CorpusOptions, why: str, obtain: str
) -> Path:
    """The folder of a corpus of one task, whose splits are fixed.

    Args:
        name: of the corpus.
        task: that it is asked for.
        only: the one that it serves.
        options: what was asked for besides.
        why: what decides its splits, for the message.
        obtain: how to get it.

    Raises:
        SuperbError: another task, names of splits, no folder.
    """
    if task != only:
        raise unknown(f"task of corpus {name!r}", task, (only,))
    refuse_options(name, options, why, root=False)
    return data_root(name, options, obtain)


def require_splits(
    name: str, root: Path, found: Survey, splits: Iterable[str], obtain: str
) -> None:
    """Raise for splits of which nothing is there.

    Args:
        name: of the corpus, for the message.
        root: the data root.
        found: what is there.
        splits: the corpus's own splits that are wanted.
        obtain: how to get them.

    Raises:
        SuperbError: naming them.
    """
    held = {utterance.split for utterance in found.utterances}
    if empty := [split for split in splits if split not in held]:
        raise SuperbError(
            f"no recordings of split {' and '.join(empty)} of {name} in {root}, which holds "
            f"{holds(root)}; {len(found.missing)} that are listed are missing. {obtain}"
        )


def partial(utterances: Iterable[Utterance], official: Mapping[str, Official]) -> str:
    """A note on splits that hold less than they should, or "".

    Args:
        utterances: each with the corpus's own name of its split.
        official: what the splits that are wanted should hold.
    """
    counts = Counter(utterance.split for utterance in utterances)
    short = [
        f"{split} {counts[split]} of {whole.utterances} utterances"
        for split, whole in official.items()
        if counts[split] < whole.utterances
    ]
    return f"partial copy: {', '.join(short)}" if short else ""


def choose_splits(
    where: str,
    there: Collection[str],
    defaults: Mapping[str, str],
    given: Mapping[str, str],
    *,
    carve: bool,
    obtain: str = "",
) -> dict[str, tuple[str, ...]]:
    """Which of a corpus's own splits make up ours.

    Args:
        where: what messages name.
        there: the corpus's own splits that exist.
        defaults: our name of a split → the corpus's own.
        given: the same, as asked for; several joined by ``+``.
        carve: whether train may give a part to choose on where the usual split cannot: it does not
            exist, or was asked for as something else.
        obtain: how to get what is missing.

    Returns:
        Our name of a split → its parts; without ``valid`` where train is to give it.

    Raises:
        SuperbError: a split that does not exist, or one that is wanted twice.
    """
    wanted = {
        split: tuple(part.strip() for part in given.get(split, default).split("+"))
        for split, default in defaults.items()
    }
    others = wanted["train"] + wanted["test"]
    if carve and any(part in others or part not in there for part in wanted["valid"]):
        del wanted["valid"]
    asked = [(split, part) for split, parts in wanted.items() for part in parts]
    if absent := [(split, part) for split, part in asked if part not in there]:
        options = ", ".join(dict.fromkeys(f"--{split}-split" for split, _ in absent))
        raise SuperbError(
            f"no split {' and '.join(f'{part!r} ({split})' for split, part in absent)} in {where}, "
            f"which has {', '.join(sorted(there))}. Choose among them with {options}, several "
            f"joined by +{', or get what is missing: ' + obtain if obtain else ''}"
        )
    for (split, part), (other, again) in combinations(asked, 2):
        if part == again:
            raise SuperbError(
                f"split {part!r} of {where} is wanted for {split} and again for {other}: name "
                f"another one with --{other}-split"
            )
    return wanted


def naming(wanted: Mapping[str, tuple[str, ...]], defaults: Mapping[str, str]) -> str:
    """A note on which splits were taken, or "" for the usual ones."""
    taken = {split: "+".join(parts) for split, parts in wanted.items()}
    if all(taken[split] == defaults[split] for split in taken):
        return ""
    return ", ".join(f"{split}: {parts}" for split, parts in taken.items())
