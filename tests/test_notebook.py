"""The notebook of the documents runs from its first cell to its last."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "first-table.ipynb"


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_it_makes_the_table_and_the_plot(
    tones: Path, quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its cells, on a small corpus and a quick protocol in place of the bundled ones."""
    # For `!superb`, also where the environment of these tests is not activated.
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", beside)
    monkeypatch.setenv("SUPERB_CACHE", str(tmp_path / "cache"))
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    at = next(
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )
    quicker = f"corpus, protocol = {str(tones)!r}, {str(quick)!r}"
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(quicker))  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    said = "".join(out.get("text", "") for out in outputs)
    assert "encoders beside their untrained twins" in said
    assert "sum − last" in said
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert any("weighted-sum" in out.get("data", {}).get("text/html", "") for out in outputs)
    assert (tmp_path / "report.html").stat().st_size > 100_000
