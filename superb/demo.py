"""A page on this machine, by gradio: drop or record a clip, and see what a trained head answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmark.answering.restored import RestoredHead
from benchmark.answers import Answer, Compares
from benchmark.core import Attends, Attention, Utterance
from benchmark.errors import SuperbError
from benchmark.probing.layers import Mix
from benchmark.progress import Progress
from superb.answers import shown_text

_HERE: Final = "127.0.0.1"
_SPANS: Final = ("from s", "to s", "heard", "sure")


def serve(head: RestoredHead, port: int, progress: Progress) -> None:
    """Show the page until Ctrl-C, and say where.

    Raises:
        SuperbError: gradio is not installed, or the port is taken.
    """
    gradio = _gradio()
    page = build_page(head)
    # system fonts: a page of one's own machine asks no other one for anything
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        page.launch(
            server_name=_HERE,
            server_port=port,
            theme=theme,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise SuperbError(
            f"port {port} is taken, or this account may not have it. Choose another with --port"
        ) from error
    progress.note(f"http://{_HERE}:{port} (Ctrl-C ends it)")
    page.block_thread()


def build_page(head: RestoredHead) -> Any:  # noqa: ANN401 - of gradio
    """The page, not shown yet.

    Raises:
        SuperbError: gradio is not installed.
    """
    gradio = _gradio()
    card, encoder = head.downstream.card, head.encoder.card.name
    compares = isinstance(head.downstream, Compares)
    shown: list[Any] = []

    def answered(*paths: str | None) -> list[Any]:
        values: list[Any] = [None] * len(shown)
        if all(paths):
            try:
                values = _values(head, [str(path) for path in paths])
            except SuperbError as error:
                raise gradio.Error(str(error)) from error
        # the answer always has its place, what else there is only where there is something
        more = [gradio.update(value=value, visible=bool(value)) for value in values[1:]]
        return [values[0], *more]

    with gradio.Blocks(title=f"{card.title}: {encoder}", analytics_enabled=False) as page:
        gradio.Markdown(f"# {card.title}\n{encoder}, {_layers(head.mix.mix)}")
        names = ("One clip", "Another clip") if compares else ("Clip",)
        clips = [
            gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label=name, buttons=["download"]
            )
            for name in names
        ]
        shown.append(gradio.Textbox(label="Answer", interactive=False))
        if not compares:
            shown.append(gradio.Label(label="Probabilities", num_top_classes=5, visible=False))
            shown.append(
                gradio.Dataframe(headers=list(_SPANS), label="Parts in time", visible=False)
            )
        if isinstance(head.downstream, Attends):
            shown.append(gradio.Plot(show_label=False, visible=False))
        if head.layer_weights is not None:
            gradio.Plot(_bars(head.layer_weights), show_label=False)
        for clip in clips:
            clip.change(answered, clips, shown)
    return page


def _values(head: RestoredHead, paths: Sequence[str]) -> list[Any]:
    """What the parts of the page show."""
    recordings = [Utterance(Path(path).name, Path(path), "test") for path in paths]
    if isinstance(head.downstream, Compares):
        answer = head.compare(*(head.reply(recording) for recording in recordings))
        return [answer.text]
    answer = head.answer(recordings[0], attention=True)
    values: list[Any] = [shown_text(answer), _probabilities(answer), _rows(answer)]
    if isinstance(head.downstream, Attends):
        values.append(None if answer.attention is None else _map(answer.attention))
    return values


def _probabilities(answer: Answer) -> dict[str, float] | None:
    several = len(answer.probabilities) > 1
    found = {
        f"{what}: {value}" if several else value: share
        for what, values in answer.probabilities.items()
        for value, share in values.items()
    }
    return found or None


def _rows(answer: Answer) -> list[list[str]]:
    return [
        [
            f"{span.start_s:.2f}",
            f"{span.end_s:.2f}",
            f"{span.text} ({span.label})" if span.label else span.text,
            "" if span.confidence is None else f"{span.confidence:.3f}",
        ]
        for span in answer.spans
    ]


def _layers(mix: Mix) -> str:
    return "weighted sum of all layers" if mix.layer is None else f"layer {mix.layer}"


def _bars(weights: Sequence[float]) -> Figure:
    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(weights)), weights)
    axes.set(title="layer weights", xlabel="layer", xticks=range(len(weights)))
    return figure


def _map(attention: Attention) -> Figure:
    """What each symbol looked at: time to the right, symbols downwards."""
    figure = Figure(figsize=(6, 1 + 0.15 * len(attention.symbols)), layout="constrained")
    axes = figure.subplots()
    if attention.symbols:
        axes.imshow(attention.weights, aspect="auto", cmap="Greys", vmin=0, vmax=1)
    axes.set(title="attention", xlabel="frame of the head", yticks=range(len(attention.symbols)))
    axes.set_yticklabels([symbol.replace(" ", "␣") for symbol in attention.symbols], fontsize=7)
    return figure


def _gradio() -> Any:  # noqa: ANN401 - a module
    try:
        import gradio
    except ImportError as error:
        raise SuperbError(
            f"the page needs gradio ({error}); type: pip install 'superb[demo]'"
        ) from error
    return gradio
