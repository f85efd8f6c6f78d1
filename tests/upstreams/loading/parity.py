"""How far each layout is from transformers: ``python -m tests.upstreams.loading.parity``.

Small random models; largest difference of a feature, in any layer, relative to the largest value.
Also the time that a file of HuBERT Base's size takes to load, beside the same as safetensors.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.conftest import TINY
from tests.upstreams.loading import training_files as made
from upstreams.loading.convert import convert
from upstreams.loading.layouts.read import read_training_file
from upstreams.loading.load import load_upstream

LAYOUTS = {
    "args": made.fairseq_args,
    "cfg": made.fairseq_cfg,
    "tuned": made.fairseq_tuned,
    "flat": made.flat_cfg,
}
READ = [
    ("hubert", "args"),
    ("hubert", "cfg"),
    ("hubert", "tuned"),
    ("hubert-large", "cfg"),
    ("wav2vec2", "args"),
    ("wav2vec2", "tuned"),
    ("xlsr", "args"),
    ("unispeech-sat", "cfg"),
    ("data2vec", "cfg"),
    ("wavlm", "flat"),
]


def states(model: Any, waveform: torch.Tensor, normalize: bool = False) -> torch.Tensor:
    """What transformers gives, all layers."""
    if normalize:
        waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    with torch.inference_mode():
        output = model(waveform[None], output_hidden_states=True)
    return torch.cat([*output.hidden_states[:-1], output.last_hidden_state])


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def _model(family: made.Family, sizes: dict[str, Any]) -> Any:
    names = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
    names |= {"data2vec-audio": "Data2VecAudio", "unispeech-sat": "UniSpeechSat"}
    config = getattr(transformers, names[family.kind] + "Config")(**{**sizes, **family.options})
    torch.manual_seed(0)
    return getattr(transformers, names[family.kind] + "Model")(config).eval()


def main() -> None:
    """Print the table, then the times."""
    noise = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "file.pt")
        print("| file | model | read | as a folder of ours | of transformers, by AutoModel |")
        print("|---|---|---|---|---|")
        for number, (name, layout) in enumerate(READ):
            family = made.FAMILIES[name]
            model = _model(family, TINY)
            torch.save(LAYOUTS[layout](family, model), path)
            found = read_training_file(path, {})
            wanted = states(model, noise, family.layer_norm)
            figures = [off(found.upstream([noise]).values[:, 0], wanted)]
            for target in ("superb", "transformers"):
                folder = Path(place, f"{number}-{target}")
                convert(found.upstream, folder, target)  # type: ignore[arg-type]
                if target == "superb":
                    again = load_upstream(str(folder))([noise]).values
                    figures.append(off(again[:, 0], wanted))
            theirs = transformers.AutoModel.from_pretrained(folder).eval()
            figures.append(off(states(theirs, noise, family.layer_norm), wanted))
            print(f"| {found.layout} | {name} | {' | '.join(f'{x:.0e}' for x in figures)} |")
        _times(Path(place))


def _times(place: Path) -> None:
    """HuBERT Base with the state of its optimiser, as a file and as a folder."""
    family = made.FAMILIES["hubert"]
    model = _model(family, {})
    content = made.fairseq_args(family, model)
    rows = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    for key, value in {
        "conv_feature_layers": rows,
        "encoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "conv_pos": 128,
        "conv_pos_groups": 16,
    }.items():
        setattr(content["args"], key, value)
    moments = {index: {"exp_avg": w.clone(), "exp_avg_sq": w.clone()}
               for index, w in enumerate(model.parameters())}  # fmt: skip
    content["last_optimizer_state"] = {"state": moments}
    path, folder = place / "base.pt", place / "base"
    torch.save(content, path)
    convert(load_upstream(str(path)), folder, "transformers")
    seconds: dict[str, list[float]] = {str(path): [], str(folder): []}
    for _ in range(5):
        for name, times in seconds.items():
            began = time.perf_counter()
            load_upstream(name)
            times.append(time.perf_counter() - began)
    for name, times in seconds.items():
        size = sum(f.stat().st_size for f in ([path] if name == str(path) else folder.iterdir()))
        print(f"{Path(name).name}: {size / 1e6:,.0f} MB, {sorted(times)[2]:.2f} s to load")


if __name__ == "__main__":
    main()
