"""Weights & Biases: runs on its servers, or in a folder with ``WANDB_MODE=offline``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import SuperbError
from benchmark.tracking.tracker import PROJECT, About


class WandB:
    """A run per result, in project ``superb`` or that of ``$WANDB_PROJECT``.

    Args:
        folder: that it keeps its folder ``wandb`` in; ``$WANDB_DIR`` or the current one if None.

    Raises:
        SuperbError: it would have to be told who this is.
    """

    def __init__(self, folder: Path | None = None) -> None:
        import wandb

        self._folder = folder
        self._mode = wandb.setup().settings.mode
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):
            raise SuperbError(
                "--track wandb has no key of an account: type wandb login, or set "
                "WANDB_MODE=offline to write runs into a folder, for wandb sync"
            )

    def open(self, about: About) -> WandBRun:
        """The run of a result; one of the same id goes on."""
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=about.run_id,
            name=str(about),
            group=about.task,
            job_type=about.upstream,
            config=dict(about.config),
            dir=self._folder,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",  # several are open at a time
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
        run.define_metric("update")
        run.define_metric("*", step_metric="update")
        return WandBRun(run)


class WandBRun:
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:  # noqa: ANN401 - its class is the extra's
        self._run = run

    def look(self, curve: str, update: int, values: Mapping[str, float]) -> None:
        """Log a point of each curve, over updates."""
        points = {f"{name}, {curve}": value for name, value in values.items()}
        self._run.log(points | {"update": update})

    def score(self, values: Mapping[str, float | str]) -> None:
        """Put the scores into the summary, which its tables show."""
        self._run.summary.update(dict(values))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
