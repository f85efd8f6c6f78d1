"""Every audio model of the installed transformers: it passes the conformance suite, or why not.

The list is the library's own, so a release that brings a model that is neither here nor excused
fails `test_every_model_is_here`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from benchmark.conformance import check_upstream, raise_for_failures
from upstreams.loading.huggingface import PARTS, HuggingFaceUpstream
from upstreams.loading.load import load_upstream

MODELS = modeling_auto.MODEL_MAPPING_NAMES
TASKS = (
    modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_AUDIO_TOKENIZATION_NAMES,
    modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_RNNT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_TDT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)
AUDIO = ("input_values", "input_features", "audio_mel")

# Settings that say how big a model is, and what they are here.
TINY = {
    "activation_dropout": 0.0,
    "adaptor_kernel_size": 3,
    "adaptor_stride": 2,
    "codebook_dim": 8,
    "codebook_size": 16,
    "conf_num_attention_heads": 2,
    "conf_num_hidden_layers": 2,
    "conv_channels": 16,
    "conv_depthwise_kernel_size": 5,
    "conv_kernel_size": 5,
    "d_model": 16,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "decoder_hidden_size": 16,
    "decoder_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_num_key_value_heads": 2,
    "depth": 2,
    "depths": [1, 1, 1, 1],
    "dim_head": 8,
    "downsample_hidden_size": 8,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "encoder_hidden_size": 4,
    "encoder_layers": 2,
    "encoder_num_attention_heads": 2,
    "encoder_num_hidden_layers": 2,
    "encoder_num_key_value_heads": 2,
    "ffn_dim": 16,
    "ffn_expansion": 2,
    "head_dim": 8,
    "hidden_dim": 16,
    "hidden_size": 16,
    "hidden_sizes": [8, 8, 8, 8],
    "input_feat_size": 128,
    "intermediate_size": 16,
    "kv_lora_rank": 8,
    "moe_intermediate_size": 8,
    "n_codebooks": 2,
    "num_attention_heads": 2,
    "num_conv_pos_embedding_groups": 2,
    "num_conv_pos_embeddings": 4,
    "num_decoder_layers": 1,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "num_filters": 4,
    "num_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_layers": 2,
    "num_local_experts": 2,
    "out_hidden_size": 16,
    "output_dim": 16,
    "output_proj_dims": 16,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 16,
    "speech_encoder_layers": 2,
    "subsampling_conv_channels": 8,
    "t2u_decoder_attention_heads": 2,
    "t2u_decoder_ffn_dim": 16,
    "t2u_decoder_layers": 1,
    "t2u_encoder_attention_heads": 2,
    "t2u_encoder_ffn_dim": 16,
    "t2u_encoder_layers": 1,
    "upsample_groups": 16,
    "upsample_initial_channel": 64,
    "vocab_size": 32,
    "vector_quantization_hidden_dimension": 8,
}
# Lists with an entry per layer, which the library fills in.
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")

# What a size above does not fit: model type -> setting, with dots for a part of it.
OVERRIDES: dict[str, dict[str, object]] = {
    "granite_speech5_ctc": {"encoder_config.num_hidden_layers": 5},
    "granite_speech5_encoder": {"num_hidden_layers": 5},
    "fun_asr_nano": {
        "adaptor_config.intermediate_size": 4,
    },
    "gemma3n": {"text_config.intermediate_size": 16},
    "gemma4_audio": {"subsampling_conv_channels": [128, 8]},  # the first is the mel bands' too
    "moonshine_streaming": {"num_key_value_heads": 2},
    "muse_spark": {
        "audio_config.num_hidden_layers": 4,
        "audio_config.hidden_sizes": [8, 8, 8, 8],
        "audio_config.depths": [1, 1, 1, 1],
    },
    "moss_transcribe_diarize": {"audio_config.max_source_positions": 100},
    "whisper": {
        "max_source_positions": 100,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    },
    "qwen2_audio": {"audio_config.max_source_positions": 100},
    "voxtral": {"audio_config.max_source_positions": 100},
    "audioflamingo3": {"audio_config.max_source_positions": 100},
}
# Feature extractors of the parts of bigger models, which the library lists under the whole.
WIDE = ("WhisperFeatureExtractor", {"feature_size": 128, "chunk_length": 2})
EXTRACTORS: dict[str, tuple[str, dict[str, object]]] = {
    # The library lists another one; published checkpoints have this.
    "wav2vec2-bert": ("SeamlessM4TFeatureExtractor", {}),
    "whisper": ("WhisperFeatureExtractor", {"chunk_length": 2}),
    "canary": ("ParakeetFeatureExtractor", {"feature_size": 128}),
    "voxtral": WIDE,
    "qwen2_audio": WIDE,
    "audioflamingo3": WIDE,
    "glmasr": WIDE,
    "moss_transcribe_diarize": ("MossTranscribeDiarizeFeatureExtractor", {"chunk_length": 2}),
    "gemma3n_audio": ("Gemma3nAudioFeatureExtractor", {}),
    "gemma4_audio": ("Gemma4AudioFeatureExtractor", {}),
    "nemotron3_diarization_audio": ("NemotronAsrStreamingFeatureExtractor", {"feature_size": 128}),
    "pe_audio_encoder": ("PeAudioFeatureExtractor", {}),
    "pocket_tts_audio_tokenizer_encoder": ("EncodecFeatureExtractor", {}),
    "mimi_encoder": ("EncodecFeatureExtractor", {}),
    "vibevoice_acoustic_tokenizer_encoder": ("VibeVoiceAcousticTokenizerFeatureExtractor", {}),
    "moonshine_streaming": ("Wav2Vec2FeatureExtractor", {}),
}


# Why a model type is not tested, or is no encoder of speech.
THROUGH_A_CODEC = "a language model that hears through a codec, and codecs are tested on their own"
EXCLUDED = {
    "clap": "its layers shrink time and frequency together, down to one embedding per clip",
    "clvp": "ranks synthetic speech; of a voice it keeps one embedding",
    "csm": THROUGH_A_CODEC,
    "dia": "reads text and writes the codes of DAC, which is tested",
    "dots3_note": "its encoder is called with chunks packed by the language model around it",
    "embedding_gemma2": "the encoder of gemma4_audio, which is tested",
    "gemma3n": "building the whole needs Pillow; its encoder gemma3n_audio is tested",
    "gemma4": "the encoder of gemma4_audio, which is tested",
    "gemma4_unified": "no encoder: samples go straight into the language model",
    "gradium_phonon_tts": "text to speech; hears its prompt through a codec",
    "higgs_audio_v2_tokenizer": "a codec around HuBERT and DAC, which are tested",
    "inkling_mm_model": "no encoder: quantised mel values are embedded by the language model",
    "kyutai_speech_to_text": THROUGH_A_CODEC,
    "moshi": THROUGH_A_CODEC,
    "moss_transcribe_diarize": "its feature extractor answers with a batch of chunks",
    "moss_transcribe_diarize_audio": "its feature extractor answers with a batch of chunks",
    "musicgen": "text to music",
    "musicgen_melody": "text to music",
    "muse_spark_audio": "part of muse_spark, which is tested",
    "nemo_speechlm": "joins the encoders of Nemotron ASR and diarization, which are tested",
    "nemotron3_5_transcribe_asr_audio": "the encoder of nemotron_asr_streaming, which is tested",
    "nemotron3_5_transcribe_audio": "joins two encoders that are tested",
    "nemotron3_diarization": "answers with speakers; its encoder is tested on its own",
    "neucodec": "a codec around w2v-BERT, which is tested; called with two kinds of input",
    "pe_audio_video": "its audio encoder is pe_audio_encoder, which is tested",
    "pe_audio_video_encoder": "needs a video",
    "phi4_multimodal": "its audio encoder is a module inside the embedding of the language model",
    "pocket_tts": "text to speech; hears its prompt through a codec",
    "pop2piano": "music to notes; AutoModel does not build it",
    "qwen2_5_omni": "AutoModel does not build it, and its encoder takes packed chunks",
    "qwen3_asr": "13 frames per second, so no whole number of samples between frames",
    "qwen3_asr_encoder": "13 frames per second, so no whole number of samples between frames",
    "qwen3_omni_moe": "AutoModel does not build it; 13 frames per second as in qwen3_asr",
    "speech-encoder-decoder": "a frame for any two other models; name its encoder",
    "univnet": "a vocoder",
    "vibevoice": "text to speech",
    "vibevoice_acoustic_tokenizer": "its encoder takes waveforms under the name of hidden states",
    "vibevoice_acoustic_tokenizer_decoder": "makes audio",
    "vibevoice_acoustic_tokenizer_encoder": "takes waveforms under the name of hidden states",
    "vibevoice_asr": "a language model around two encoders of the VibeVoice tokenizer",
    "xcodec": "a codec around HuBERT and DAC, which are tested",
    "xcodec2": "a codec around w2v-BERT, which is tested; called with two kinds of input",
}
# Encoders that the library also lists on their own: part -> a whole that is tested.
PART_OF = {
    "audioflamingo3_encoder": "audioflamingo3",
    "fun_asr_nano_encoder": "fun_asr_nano",
    "glmasr_encoder": "glmasr",
    "pocket_tts_audio_tokenizer_encoder": "pocket_tts_audio_tokenizer",
    "qwen2_audio_encoder": "qwen2_audio",
    "voxtral_encoder": "voxtral",
    "voxtral_realtime_encoder": "voxtral_realtime",
}
TESTED = (
    "audio-spectrogram-transformer",
    "audioflamingo3",
    "canary",
    "cohere_asr",
    "dac",
    "data2vec-audio",
    "encodec",
    "fun_asr_nano",
    "gemma3n_audio",
    "gemma4_audio",
    "glmasr",
    "granite_speech",
    "granite_speech5_ctc",
    "granite_speech5_encoder",
    "granite_speech_plus",
    "hubert",
    "lasr_ctc",
    "lasr_encoder",
    "mimi",
    "mimi_encoder",
    "moonshine",
    "moonshine_streaming",
    "muse_spark",
    "nemotron3_5_asr",
    "nemotron3_diarization_audio",
    "nemotron_asr_streaming",
    "nemotron_asr_streaming_encoder",
    "parakeet_ctc",
    "parakeet_encoder",
    "parakeet_rnnt",
    "parakeet_tdt",
    "pe_audio",
    "pe_audio_encoder",
    "pocket_tts_audio_tokenizer",
    "qwen2_audio",
    "seamless_m4t",
    "seamless_m4t_v2",
    "sew",
    "sew-d",
    "speech_to_text",
    "speecht5",
    "unispeech",
    "unispeech-sat",
    "voxtral",
    "voxtral_realtime",
    "wav2vec2",
    "wav2vec2-bert",
    "wav2vec2-conformer",
    "wavlm",
    "whisper",
)

# Hidden states that cannot stand beside the last: of another frame rate or width.
LEFT_OUT = {
    "fun_asr_nano": 1,
    "granite_speech5_ctc": 2,
    "granite_speech5_encoder": 2,
    "muse_spark": 4,
}


def shrink(settings):
    """A configuration, as a dictionary, with everything in it small."""
    small = {}
    for key, value in settings.items():
        if key in PER_LAYER:
            continue
        if isinstance(value, dict) and "model_type" in value:
            small[key] = shrink(value)
        elif key in TINY and isinstance(value, (int, float, list)):
            new = TINY[key]
            small[key] = (
                [new] * len(value) if isinstance(value, list) and not isinstance(new, list) else new
            )
        elif key.endswith("token_id"):  # within the small vocabulary
            small[key] = value % 32 if isinstance(value, int) else value and [value[0] % 32]
        elif "drop" in key and isinstance(value, float):
            small[key] = 0.0
        else:
            small[key] = value
    return small


def tiny_config(model_type):
    config_class = transformers.CONFIG_MAPPING[model_type]
    settings = shrink(config_class().to_dict())
    for path, value in OVERRIDES.get(model_type, {}).items():
        *parents, key = path.split(".")
        inner = settings
        for parent in parents:
            inner = inner[parent]
        inner[key] = value
    for name in ("transformers_version", "architectures", "dtype"):
        settings.pop(name, None)
    return config_class(**settings)


def build(model_type, folder):
    """A tiny random checkpoint of a model type, with its feature extractor."""
    config = tiny_config(model_type)
    auto = PARTS[model_type].auto if model_type in PARTS else "AutoModel"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, auto).from_config(config)
    model.save_pretrained(folder)
    name, options = EXTRACTORS.get(
        model_type, (FEATURE_EXTRACTOR_MAPPING_NAMES.get(model_type), {})
    )
    getattr(transformers, name)(**options).save_pretrained(folder)
    return model


def heard_by_the_library():
    """Model types of the library's lists that take audio."""
    found = set(FEATURE_EXTRACTOR_MAPPING_NAMES).union(*TASKS)
    folder = Path(transformers.__file__).parent / "models"
    audio = re.compile(
        r"input_modalities.*audio|main_input_name = \"(input_values|input_features|audio)"
    )
    hearing = {
        path.parent.name
        for path in folder.glob("*/modeling_*.py")
        if audio.search(path.read_text(encoding="utf-8"))
    }
    for model_type, names in MODELS.items():
        module = model_type_to_module_name(model_type)
        if module not in hearing:
            continue
        code = importlib.import_module(f"transformers.models.{module}")
        for name in [names] if isinstance(names, str) else names:
            model = getattr(code, name, None)
            if getattr(model, "main_input_name", "") in AUDIO:
                found.add(model_type)
    return found


def test_every_model_is_here():
    """A new release of the library brings new models: cover them, or say why not."""
    known = {*TESTED, *EXCLUDED, *PART_OF}
    assert len(known) == len(TESTED) + len(EXCLUDED) + len(PART_OF), "listed twice"
    heard = heard_by_the_library()
    assert not heard - known, "add these to TESTED, or to EXCLUDED with the reason"
    assert not known - heard, "the library no longer has these"
    assert set(PART_OF.values()) <= set(TESTED)


@pytest.mark.parametrize("model_type", TESTED)
def test_conforms(model_type, tmp_path, rng_untouched):
    with torch.random.fork_rng(devices=[]):
        model = build(model_type, tmp_path)
    upstream = load_upstream(str(tmp_path))
    left_out = re.search(r"left out (\d) hidden states? of another", upstream.card.note)
    assert int(left_out[1] if left_out else 0) == LEFT_OUT.get(model_type, 0)
    raise_for_failures(check_upstream(upstream, hop_budget_s=0.1))
    if isinstance(upstream, HuggingFaceUpstream):
        saved = dict(model.named_parameters())
        for name, weight in upstream.model.named_parameters():
            theirs = [value for key, value in saved.items() if f".{key}".endswith(f".{name}")]
            assert any(torch.equal(value, weight) for value in theirs), name
    twin = load_upstream(f"untrained:{tmp_path}")
    for name in ("layers", "dim", "hop_samples", "sample_rate", "min_samples"):
        assert getattr(twin.card, name) == getattr(upstream.card, name)
    assert twin.card.family == "untrained"
    assert left_out is None or left_out[0] in twin.card.note
