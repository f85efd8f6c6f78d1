"""A training file of whatever layout, recognised by what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from benchmark.errors import UpstreamError
from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.files import FORMS, Origin, refuse_pointer, safetensors, some
from upstreams.loading.inert import read_inert
from upstreams.loading.layouts import av_hubert, bare, fairseq, ours, rows, s3prl, wav2vec
from upstreams.loading.layouts.file import Found, Layout, TrainingFile, opened, parts
from upstreams.loading.pretrained import Frozen, frozen
from upstreams.loading.rows import with_weights
from upstreams.loading.untrained import SEED, untrained_card
from upstreams.models.architecture import Architecture, untrained_encoder
from upstreams.models.transformer import TransformerUpstream

# The first that recognises a file reads it. `bare` knows weights alone, so it comes after those
# that know settings too.
LAYOUTS: tuple[Layout, ...] = (ours, av_hubert, wav2vec, s3prl, fairseq, bare, rows)
# Names that weights of text, of pictures or of what writes text have.
OTHERS = {
    "embed_tokens.": "a model of text, or one that writes it",
    "word_embeddings.": "a model of text",
    "sentence_encoder.": "a model of text",
    "wte.": "a language model",
    "tok_embeddings.": "a language model",
    "patch_embed": "a model of pictures",
}


def read_training_file(path: Path, typed: Mapping[str, str], name: str = "") -> Found:
    """The encoder in a training file; nothing in the file is run.

    Args:
        path: a file of ``torch.save`` or safetensors.
        typed: settings that the user gave, for what the file does not say.
        name: for the encoder; "" for the file's own, without its ending.

    Raises:
        UpstreamError: it is damaged, of no layout that is known, of something that does not hear,
            or does not say what the features depend on.
    """
    _refuse_missing(path)
    refuse_pointer(path)
    _refuse_shard(path)
    _refuse_part_of_folder(path)
    content = {"state_dict": safetensors(path)} if _is_safetensors(path) else read_inert(path)
    file = opened(path, Origin(name or path.resolve().stem, str(path)), content, typed)
    for layout in LAYOUTS:
        if layout.recognises(file):
            found = layout.read(file)
            card = found.upstream.card
            said = ", ".join(f"{words} {value}" for words, value in found.said.items())
            found.upstream.card = replace(card, training=said)
            return found
    raise _unknown(file)


def read_row(name: str, path: Path, typed: Mapping[str, str]) -> Frozen:
    """A row of the catalogue with the weights of a file, its own or of its layout.

    Args:
        name: of the row.
        path: the file.
        typed: settings that the user gave, for what the file does not say.

    Raises:
        UpstreamError: as `read_training_file`, or it holds an encoder of another size.
    """
    entry = UPSTREAMS[name]
    _refuse_missing(path)
    if entry.layout:
        content = read_inert(path)
        if isinstance(content, dict) and load_attribute(entry.layout).key in content:
            return with_weights(name, content, path, name)
    upstream = read_training_file(path, typed, name).upstream
    card = upstream.card
    found = (card.layers, card.dim, card.hop_samples)
    listed = (entry.layers, entry.dim, entry.hop_samples)
    if found != listed:
        raise UpstreamError(
            f"{path} holds an encoder with layers, dim and hop {found}, and {name} has {listed}; "
            f"without the name it is taken for what it is: --upstream {path}"
        )
    return upstream


def untrained_file(path: Path, typed: Mapping[str, str]) -> Frozen:
    """The untrained twin of the encoder in a training file."""
    upstream = read_training_file(path, typed).upstream
    normalize = isinstance(upstream, TransformerUpstream) and upstream.normalize
    architecture = cast("Architecture", upstream.encoder.config)
    encoder = untrained_encoder(architecture, SEED)
    return frozen(encoder, untrained_card(upstream.card), normalize)


def _refuse_part_of_folder(path: Path) -> None:
    """The weights of a folder whose other files say what they are of."""
    if path.name in FORMS and (path.parent / "config.json").is_file():
        raise UpstreamError(
            f"{path} is a file of a checkpoint folder, whose config.json says what it is; pass the "
            f"checkpoint's folder: --upstream {path.parent}"
        )


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and head[:2] != b"PK"


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        what = "is a folder, no" if path.is_dir() else "is no"
        raise UpstreamError(f"{path} {what} training file; give the path of one, such as ./x.pt")


def _refuse_shard(path: Path) -> None:
    stem, mark, number = path.stem.rpartition("-shard")
    if not (mark and number.isdigit()):
        return
    sisters = sorted(other.name for other in path.parent.glob(f"{stem}-shard*{path.suffix}"))
    raise UpstreamError(
        f"{path} is one of several files that a model was sharded into ({some(sisters)} "
        f"{'is' if len(sisters) == 1 else 'are'} here). Pieces of weights are not put together "
        "here; have the training save one file, in fairseq without --use-sharded-state"
    )


def _unknown(file: TrainingFile) -> UpstreamError:
    for part, what in OTHERS.items():
        if any(part in name for name in file.weights):
            return UpstreamError(
                f"{file.path} holds {what} ({some(parts(file.weights))}), not a speech encoder"
            )
    return UpstreamError(
        f"{file.path} holds weights of {some(parts(file.weights))}, in no layout that is known. "
        "docs/checkpoints.md has a table of those; any other model goes into a file: "
        "--upstream my_file.py:MyClass"
    )
