"""What `superb check` is given, whatever kind of plug-in it is, and the suite for it."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Literal, get_args

from benchmark.conformance import Check, check_upstream
from benchmark.conformance import check_corpus as check_loaded_corpus
from benchmark.conformance import check_downstream as check_loaded_downstream
from benchmark.core import Corpus, DownstreamCard, UpstreamCard
from benchmark.errors import SuperbError
from benchmark.protocol import load_protocol
from benchmark.registry import is_target, load_attribute, made
from downstreams import PROTOCOLS
from downstreams.asr import Asr
from downstreams.corpora import CORPORA, MANIFEST_SUFFIXES, CorpusOptions
from downstreams.corpora.load import check_fits, corpus_names, load_corpus
from downstreams.load import downstream_names, load_downstream
from downstreams.recogniser import Recogniser, head_names
from superb.data import ANY_TASK
from upstreams.loading.load import load_upstream, upstream_names

Kind = Literal["upstream", "downstream", "corpus", "head"]


def check_target(
    target: str,
    kind: str | None = None,
    downstream: str | None = None,
    corpus: str | None = None,
    data_root: Path | None = None,
) -> dict[str, list[Check]]:
    """Run the suite of whatever a user typed.

    Args:
        target: as for ``--upstream``, ``--downstream`` or ``--corpus``.
        kind: what it is; None finds out.
        downstream: the task that a corpus is to serve, or several with commas.
        corpus: whose train split a task is tried on.
        data_root: folder of the corpus.

    Returns:
        What was checked, for a title → the outcome.

    Raises:
        SuperbError: it cannot be found, is of several kinds, or an option means nothing to it.
    """
    if kind is not None and kind not in get_args(Kind):
        raise SuperbError(f"--kind is {', '.join(get_args(Kind))}; got {kind!r}")
    kind = kind or find_kind(target)
    for option, value, owner in (
        ("--downstream", downstream, "corpus"),
        ("--corpus", corpus, "downstream"),
    ):
        if value is not None and kind != owner:
            raise SuperbError(f"{target} is checked as {kind}, which takes no {option}")
    if kind == "upstream":
        checks = check_upstream(load_upstream(target), again=lambda: load_upstream(target))
        return {target: checks}
    if kind == "downstream":
        return {target: check_downstream(target, corpus, data_root=data_root)}
    if kind == "head":
        return {target: check_head(target)}
    tasks: list[str | None] = [None]
    if downstream is not None:
        tasks = [part.strip() for part in downstream.split(",") if part.strip()]
    elif target in CORPORA:
        tasks = list(CORPORA[target].tasks)
    return {
        target if task is None else f"{target} for {task}": check_corpus(
            target, task, data_root=data_root
        )
        for task in tasks
    }


def check_downstream(
    task: str | object, corpus: str | object | None = None, *, data_root: Path | None = None
) -> list[Check]:
    """Check a task against its whole contract, under the bundled protocols.

    Args:
        task: the object, or whatever ``--downstream`` takes.
        corpus: try it on utterances of this one's train split (test, where nothing is trained), as
            ``--corpus`` takes it; None makes some up from what its card needs.
        data_root: folder of the corpus.

    Raises:
        SuperbError: what was given cannot be loaded.
    """
    loaded = load_downstream(task)
    mini = load_protocol("mini", PROTOCOLS)  # small heads: the one that is tried
    others = sorted(file.stem for file in PROTOCOLS.glob("*.toml"))
    protocols = [mini, *(load_protocol(name, PROTOCOLS) for name in others if name != mini.name)]
    utterances = None
    if corpus is not None:
        found = load_corpus(corpus, loaded.card, CorpusOptions(data_root))
        check_fits(loaded, found)
        first = next(iter(found.partitions().values()))
        utterances = first.split("train" if loaded.card.trained else "test")
    return check_loaded_downstream(loaded, protocols=protocols, utterances=utterances)


def check_head(head: str) -> list[Check]:
    """Check a head of speech recognition as the task that it makes of ``asr``.

    Raises:
        SuperbError: what was given cannot be loaded, or needs recordings, which there are none of.
    """
    task = Asr().with_head(head)
    if not isinstance(task, Asr):
        raise SuperbError(
            f"the head {head} learns from recordings and a lexicon, which there are none of here; "
            f"try it with superb run --upstream fbank --downstream asr --head {head}"
        )
    return check_downstream(task)


def check_corpus(
    corpus: str | object, task: str | object | None = None, *, data_root: Path | None = None
) -> list[Check]:
    """Check a corpus as one task sees it.

    Args:
        corpus: whatever ``--corpus`` takes, or a function or `Corpus`.
        task: the task's object, or whatever ``--downstream`` takes; None asks for nothing but audio
            and splits.
        data_root: folder of the corpus.

    Raises:
        SuperbError: what was given cannot be loaded, or breaks what every corpus must keep.
    """
    downstream = None if task is None else load_downstream(task)
    card = ANY_TASK if downstream is None else downstream.card

    def load() -> Corpus:
        found = load_corpus(corpus, card, CorpusOptions(data_root))
        if downstream is not None:
            check_fits(downstream, found)
        return found

    return check_loaded_corpus(load(), again=load)


def find_kind(target: str) -> Kind:
    """What a name or target stands for.

    Raises:
        SuperbError: it is the name of several things, or what it names is none of them.
    """
    names: dict[Kind, list[str]] = {
        "upstream": upstream_names(),
        "downstream": downstream_names(),
        "corpus": corpus_names(),
        "head": head_names(),
    }
    if kinds := [kind for kind, own in names.items() if target in own]:
        if len(kinds) > 1:
            raise SuperbError(
                f"{target!r} is the name of several things: {', '.join(kinds)}. Say which with "
                f"--kind {kinds[0]}"
            )
        return kinds[0]
    if Path(target).suffix in MANIFEST_SUFFIXES or target.startswith("hf-stream:"):
        return "corpus"
    if is_target(target) and not target.startswith(("hf:", "untrained:", "torchaudio:")):
        return _kind_of_object(target)
    plain = target.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if plain and not Path(target).exists():
        everything = [name for own in names.values() for name in own]
        near = difflib.get_close_matches(target, everything, n=3, cutoff=0.6)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise SuperbError(
            f"unknown upstream, task, corpus or head {target!r}.{meant} superb upstreams, superb "
            "downstreams and superb corpora list names. Other forms: my_file.py:Name, "
            "package.module:Name, a checkpoint's folder, org/name, a manifest"
        )
    return "upstream"


def _kind_of_object(target: str) -> Kind:
    """By its card, or by what it gives when it is called."""
    thing = load_attribute(target)
    if isinstance(thing, type):
        thing = made(target, thing, "object")
    elif callable(thing) and not hasattr(thing, "card"):
        if {"task", "data_root"} & set(inspect.signature(thing).parameters):
            return "corpus"
        thing = made(target, thing, "object")
    if isinstance(thing, Recogniser):
        return "head"
    card = getattr(thing, "card", None)
    if isinstance(card, UpstreamCard):
        return "upstream"
    if isinstance(card, DownstreamCard):
        return "downstream"
    if isinstance(thing, Corpus) or callable(thing) or _gives_utterances(thing):
        return "corpus"
    raise SuperbError(
        f"{target} gives {type(thing).__name__}: an upstream has a card that is a "
        "superb.UpstreamCard, a task one that is a superb.DownstreamCard, a corpus is a function "
        "that returns superb.Utterance objects, and a head has what docs/adding-a-task.md says. "
        "Say which is meant with --kind"
    )


def _gives_utterances(thing: object) -> bool:
    return hasattr(thing, "__iter__") and not isinstance(thing, str | bytes)
