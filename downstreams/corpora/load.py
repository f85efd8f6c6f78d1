"""From what a user types after ``--corpus``, or hands over, to a corpus as one task sees it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmark.core import (
    ChecksData,
    Corpus,
    Downstream,
    DownstreamCard,
    StoredAudio,
    Utterance,
)
from benchmark.errors import LacksError, SuperbError, unknown
from benchmark.registry import errors_of, is_target, load_attribute, made, plugins
from downstreams import DOWNSTREAMS
from downstreams.corpora import (
    CORPORA,
    MANIFEST_SUFFIXES,
    CorpusEntry,
    CorpusOptions,
    Manifest,
    content_sha256,
    refuse_options,
)
from downstreams.load import load_downstream

GROUP: Final = "superb.corpora"
FORMS: Final = (
    f"Or give the path of a manifest ({', '.join(MANIFEST_SUFFIXES)}) of your own data, "
    "hf:org/name, my_corpus.py:load or package.module:load."
)


def load_corpus(
    corpus: str | object, card: DownstreamCard, options: CorpusOptions | None = None
) -> Corpus:
    """Load a corpus for one task, and check that it has what the task needs.

    Args:
        corpus: a name in `CORPORA` or of an installed plug-in; ``hf:`` with a dataset of the hub or
            a folder, or ``hf-stream:`` with a dataset of the hub; ``path.py:name`` or
            ``package.module:name``, a function, class or object; a file that ends in one of
            `MANIFEST_SUFFIXES`, or a `Manifest`; or a function or `Corpus` itself. A function is
            called with those of the arguments ``task`` (the card) and ``data_root`` that it has,
            and gives utterances or a `Corpus`.
        card: the task that is to read it.
        options: where it lies, and which of its splits are wanted.

    Raises:
        SuperbError: for an unknown name, a task that the corpus does not serve, options that mean
            nothing to it, and whatever is wrong with its utterances.
    """
    options = options or CorpusOptions()
    found = _load(corpus, card, options)
    if options.trials is None:
        return found
    from downstreams.corpora.trials import read_trials, with_trials

    named = with_trials(options.trials, read_trials(options.trials), found.utterances)
    sha256 = hashlib.sha256(f"{found.sha256} {content_sha256(named, 'trials')}".encode())
    return replace(found, utterances=tuple(named), sha256=sha256.hexdigest())


def _load(corpus: str | object, card: DownstreamCard, options: CorpusOptions) -> Corpus:
    """The same without trials."""
    if isinstance(corpus, Manifest):
        return _from_manifest(corpus, card, options)
    if not isinstance(corpus, str):
        where = getattr(corpus, "__name__", "") or getattr(corpus, "name", "")
        return _from_plugin(str(where or type(corpus).__name__), corpus, card, options)
    name = corpus.strip()
    if name in CORPORA:
        return _from_table(name, card, options)
    if name.startswith(("hf:", "hf-stream:")):
        from downstreams.corpora import huggingface

        return huggingface.load(name, card, options)
    installed = plugins(GROUP, CORPORA, "corpus")
    if target := installed.get(name, name if is_target(name) else ""):
        own = name if name in installed else ""
        return _from_plugin(target, load_attribute(target), card, options, own)
    if name.endswith(".py"):
        raise SuperbError(f"{name} is a file; name what is in it, such as {name}:load")
    # A separator or a suffix means a file was meant; the manifest reader says what is wrong.
    if Path(name).suffix or len(Path(name).parts) > 1:
        return _from_manifest(Manifest(Path(name)), card, options)
    raise unknown("corpus", name, corpus_names(), FORMS)


def _from_manifest(own: Manifest, card: DownstreamCard, options: CorpusOptions) -> Corpus:
    """A table of recordings, whose paths it has itself."""
    from downstreams.corpora import manifest

    refuse_options(str(own.path), options, "its column audio says where all is", splits=False)
    if own.name in corpus_names():
        raise SuperbError(
            f"{own.path} is called {own.name!r}, which is built in; call it otherwise"
        )
    return manifest.load(
        own.path, card, options.pronunciations, name=own.name, splits=options.splits
    )


def check_fits(downstream: Downstream, corpus: Corpus) -> None:
    """Raise for a corpus that a task has no right answers on.

    Raises:
        LacksError: what the task says of it (`ChecksData`), after the name of corpus and fold.
    """
    if not isinstance(downstream, ChecksData):
        return
    for fold, part in corpus.partitions().items():
        where = f"corpus {corpus.name}{f', fold {fold}' if fold else ''}"
        try:
            downstream.check_data(part.utterances)
        except SuperbError as error:
            raise LacksError(f"{where}: {error}") from error


def how_to_get(card: DownstreamCard) -> str:
    """Where a task finds a corpus, as commands to type."""
    commands = [
        f"superb run -d {card.name} --corpus {name} -u ENCODER"
        + (" --data-root FOLDER" if entry.layout else "")
        for name, entry in CORPORA.items()
        if _served(entry, card)
    ]
    columns = ", ".join(("audio", "split (or fold)", *card.columns))
    return (
        f"Corpora for {card.name}: {'; '.join(commands) or 'none of ours'}; or your own, with "
        f"columns {columns}: superb run -d {card.name} --corpus my.csv -u ENCODER (or "
        f"{', '.join(MANIFEST_SUFFIXES[1:])}, or my_corpus.py:load)"
    )


def corpus_names() -> list[str]:
    """Names that need no path: the table, then installed plug-ins. Imports none of them."""
    return [*CORPORA, *plugins(GROUP, CORPORA, "corpus")]


def _from_table(name: str, card: DownstreamCard, options: CorpusOptions) -> Corpus:
    """The part of a corpus that serves a task, or that of a task like it for a plug-in."""
    from downstreams.corpora.utterances import check_closed_sets

    entry = CORPORA[name]
    load = load_attribute(entry.target)
    if card.name in entry.tasks:
        own: Corpus = load(card.name, options)
        check_closed_sets(name, own, card.closed_columns)
        return own
    served = {name: _served(entry, card) for name, entry in CORPORA.items()}
    if not served[name]:
        raise SuperbError(
            f"corpus {name!r} does not serve task {card.name!r}, only "
            f"{', '.join(entry.tasks)} and tasks that need no more. {how_to_get(card)}"
        )
    found: Corpus = load(served[name], options)
    return _seen_by(card, name, found, name, options.pronunciations)


def _served(entry: CorpusEntry, card: DownstreamCard) -> str:
    """The task whose part of a corpus has what a plug-in needs; "" if there is none."""
    if card.name in entry.tasks:
        return card.name
    if card.name in DOWNSTREAMS:  # of those, the table says which it is meant for
        return ""
    wanted = set(card.columns)
    # every corpus of the table knows its speakers; what has least beside is most alike
    has = {task: {*load_downstream(task).card.columns, "speaker"} for task in entry.tasks}
    fit = [task for task in entry.tasks if has[task] >= wanted]
    return min(fit, key=lambda task: len(has[task] - wanted), default="")


def _from_plugin(
    where: str,
    thing: object,
    card: DownstreamCard,
    options: CorpusOptions,
    name: str = "",
) -> Corpus:
    """What a user's function or object gives, checked.

    Args:
        where: what messages name.
        thing: as it was found.
        card: the task.
        options: what was asked for.
        name: of the corpus, unless it has one itself; "" for one that follows from `where`.
    """
    refuse_options(where, options, "its utterances say which split they are in", root=False)
    if isinstance(thing, type):
        thing = made(where, thing, "corpus")
    if isinstance(thing, Corpus):
        refuse_options(where, options, "it is an object that is loaded already", splits=False)
        found = thing
    else:
        with errors_of(where):
            found = _gathered(where, thing, card, options)
    name = found.name or name or _called(where, thing)
    if name in CORPORA:
        raise SuperbError(
            f"{where} gives a corpus called {name!r}, which is built in; choose another name"
        )
    for utterance in found.utterances:
        _check_type(where, utterance)
    return _seen_by(card, where, found, name, options.pronunciations)


def _seen_by(
    card: DownstreamCard, where: str, found: Corpus, name: str, pronunciations: Path | None
) -> Corpus:
    """A corpus with the labels that a task means, checked."""
    from downstreams.corpora.utterances import checked

    return checked(
        where,
        [_labelled(utterance, card) for utterance in found.utterances],
        card,
        name=name,
        source=found.source or where,
        licence=found.licence,
        note=found.note,
        folds=found.folds,
        pronunciations=pronunciations,
    )


def _gathered(where: str, load: object, card: DownstreamCard, options: CorpusOptions) -> Corpus:
    """Call a user's function with the arguments it knows, and take all that it gives."""
    contract = (
        "a corpus is a function that returns superb.Utterance objects, or a superb.Corpus; it may "
        "have the arguments task and data_root"
    )
    if not callable(load):
        raise SuperbError(f"{where} is a {type(load).__name__}: {contract}")
    offered = {"task": card, "data_root": options.data_root}
    parameters = inspect.signature(load).parameters
    given = {name: value for name, value in offered.items() if name in parameters}
    if "data_root" not in given:
        refuse_options(
            where, options, "its function would have to name an argument data_root", splits=False
        )
    elif options.data_root is None:
        if parameters["data_root"].default is inspect.Parameter.empty:
            raise SuperbError(f"{where} needs --data-root FOLDER, the folder of its recordings")
        del given["data_root"]
    try:
        inspect.signature(load).bind(**given)
    except TypeError as error:
        raise SuperbError(f"{where}: {error}; {contract}") from error
    found = load(**given)
    if isinstance(found, Corpus):
        return found
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise SuperbError(f"{where} gives {type(found).__name__}: {contract}")
    return Corpus("", utterances=tuple(found))


def _called(where: str, thing: object) -> str:
    """A name from that of the function, or from its file or module where it is just ``load``."""
    module, _, attribute = where.rpartition(":")
    attribute = attribute or where
    if attribute != "load":
        return attribute
    if module.endswith(".py"):
        return Path(module).stem
    return (module or getattr(thing, "__module__", "")).rpartition(".")[2] or attribute


def _check_type(where: str, utterance: object) -> None:
    if not isinstance(utterance, Utterance):
        raise SuperbError(
            f"{where} gives {type(utterance).__name__} {utterance!r:.60} among its utterances; "
            "each is a superb.Utterance(id, audio, split, ...)"
        )
    if not isinstance(utterance.audio, Path | bytes | StoredAudio):
        raise SuperbError(
            f"{where}, utterance {utterance.id!r}: audio must be a pathlib.Path or the bytes of a "
            f"file, got {type(utterance.audio).__name__}"
        )
    texts = {"id": utterance.id, "split": utterance.split, "speaker": utterance.speaker}
    texts |= {"text": utterance.text, "label": utterance.label, **utterance.columns}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise SuperbError(
                f"{where}, utterance {utterance.id!r}: {name} must be text, got {value!r:.60}"
            )


def _labelled(utterance: Utterance, card: DownstreamCard) -> Utterance:
    """The same with the label that the task means, which may stand in another column."""
    if not card.labelled or card.label_from == "label":
        return utterance
    return replace(utterance, label=utterance.value(card.label_from))
