"""The picture of a training: losses over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_losses(history: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Draw the loss in training and on held-out audio, and accuracies where there are any.

    Args:
        history: rows with ``step``, ``loss``, perhaps ``held_out_loss`` and ``…accuracy``.
        title: of the picture.
        path: PNG file to write.
    """
    # The object interface: no global state, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = ["loss"]
    if any("accuracy" in row for row in history):
        panels.append("accuracy")
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for column, label, style in (
            (name, "training", {"linewidth": 0.8, "alpha": 0.6}),
            (f"held_out_{name}", "held-out audio", {"linewidth": 1.6, "marker": ".", "zorder": 3}),
        ):
            points = [(row["step"], row[column]) for row in history if column in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.set(title=f"{title}: {name}", xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
