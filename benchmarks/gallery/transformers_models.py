"""Architectures of the ``transformers`` library: its own code and structure, random weights, modest width and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

from benchmarks.gallery.settle import Pair, settled

VOCABULARY = 500
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
_PICTURE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 64,
    "patch_size": 16,
}  # fmt: skip


class Called(nn.Module):
    """A model called with some named inputs, giving some of its outputs.

    Args:
        model: the library's.
        outputs: names of its outputs that are kept.
    """

    def __init__(self, model: nn.Module, *outputs: str) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def call(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs that are kept, by name."""
        found = self.model(**inputs)
        return {name: getattr(found, name) for name in self.outputs}


class Pictured(Called):
    """A model of pictures."""

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the kept outputs for [batch, 3, height, width]."""
        return self.call(pixel_values=pixel_values)


class Read(Called):
    """A model of texts, with padding."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the kept outputs for int64 [batch, length] twice."""
        return self.call(input_ids=input_ids, attention_mask=attention_mask)


class Heard(Called):
    """A model of sound, as a waveform or a spectrogram."""

    name = "input_values"

    def forward(self, sound: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the kept outputs."""
        return self.call(**{self.name: sound})


class Spectral(Heard):
    """A model of spectrograms."""

    name = "input_features"


class CausalStep(nn.Module):
    """One step of a decoder: new tokens, and the keys and values of every layer so far, nested."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, past: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, Any]:
        """Return ``logits``, [batch, new, vocabulary], and ``past``, grown by the new tokens."""
        cache = hf.DynamicCache(ddp_cache_data=[(keys, values) for keys, values in past], config=self.model.config)
        found = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return {
            "logits": found.logits,
            "past": [(layer.keys, layer.values) for layer in found.past_key_values.layers],
        }


def _normal(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def _ids(*sizes: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, sizes, generator=torch.Generator().manual_seed(1))


def _made(kind: str, config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(hf, kind)(config).eval()
    return model


def _config(kind: str, options: dict[str, Any]) -> Any:
    return getattr(hf, kind)(**options)


def pictures(model: str, output: str = "logits", size: int = 64, **options: Any) -> Callable[[], Pair]:
    """Return a factory of a model of pictures; `options` go to its configuration."""

    def make() -> Pair:
        kind = getattr(hf, model).config_class.__name__
        body = _made(model, _config(kind, {"num_labels": 10, **options}))
        return settled(Pictured(body, *output.split()), {"pixel_values": _normal(2, 3, size, size)})

    return make


def texts(model: str, output: str = "last_hidden_state", **options: Any) -> Callable[[], Pair]:
    """Return a factory of a text encoder; `options` go to its configuration."""

    def make() -> Pair:
        body = _made(model, _config(getattr(hf, model).config_class.__name__, options))
        ids = _ids(2, 12)
        return settled(Read(body, *output.split()), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    return make


def sounds(kind: type[Heard], model: str, sizes: tuple[int, ...], output: str = "last_hidden_state", *,
           part: str = "", **options: Any) -> Callable[[], Pair]:  # fmt: skip
    """Return a factory of a model of sound; `part` names the part of it that is called, such as ``encoder``."""

    def make() -> Pair:
        body = _made(model, _config(getattr(hf, model).config_class.__name__, options))
        body = getattr(body, part) if part else body
        return settled(kind(body, *output.split()), {"sound": _normal(*sizes)})

    return make


def decoders(model: str, *, layers: int = 2, heads: int = 4, width: int = 16, **options: Any) -> Callable[[], Pair]:
    """Return a factory of a decoder step with a cache of seven tokens; `heads` are those of keys and values."""

    def make() -> Pair:
        body = _made(model, _config(getattr(hf, model).config_class.__name__, options))
        past = [(_normal(2, heads, 7, width), _normal(2, heads, 7, width)) for _ in range(layers)]
        return settled(CausalStep(body), {})[0], {"input_ids": _ids(2, 3), "past": past}

    return make


def _narrow(**more: Any) -> dict[str, Any]:
    return {**_TEXT, "num_hidden_layers": 2, **more}


_LLAMA = _narrow(num_key_value_heads=2)
_HUBERT: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
           "conv_dim": (32, 32, 32), "conv_stride": (5, 4, 4), "conv_kernel": (10, 8, 4),
           "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 3}  # fmt: skip

# Pictures
vit = pictures("ViTForImageClassification", **_PICTURE)
deit = pictures("DeiTForImageClassification", **_PICTURE)
beit = pictures("BeitForImageClassification", **_PICTURE, use_relative_position_bias=True)
dinov2 = pictures("Dinov2Model", "last_hidden_state pooler_output", **{**_PICTURE, "patch_size": 8})
swin = pictures(
    "SwinForImageClassification", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4
)
swinv2 = pictures(
    "Swinv2ForImageClassification", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4
)
convnext = pictures("ConvNextForImageClassification", hidden_sizes=[24, 48, 96, 192], depths=[1, 1, 2, 1])
convnextv2 = pictures("ConvNextV2ForImageClassification", hidden_sizes=[24, 48, 96, 192], depths=[1, 1, 2, 1])
mobilevit = pictures("MobileViTForImageClassification", size=96, image_size=96, hidden_sizes=[36, 48, 60],
                     neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 96])  # fmt: skip
poolformer = pictures("PoolFormerForImageClassification", hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 2, 1])
levit = pictures("LevitForImageClassification", image_size=64, hidden_sizes=[32, 48, 64], depths=[1, 1, 1],
                 num_attention_heads=[2, 3, 4], key_dim=[8, 8, 8])  # fmt: skip
regnet = pictures("RegNetForImageClassification", hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 2, 1],
                  embedding_size=16, groups_width=8)  # fmt: skip
clip_vision = pictures("CLIPVisionModelWithProjection", "image_embeds", **_PICTURE, projection_dim=32)
siglip_vision = pictures("SiglipVisionModel", "last_hidden_state pooler_output", **_PICTURE)
segformer = pictures("SegformerForSemanticSegmentation", depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 40, 64],
                     decoder_hidden_size=32)  # fmt: skip
dpt = pictures("DPTForDepthEstimation", "predicted_depth", **{**_PICTURE, "num_hidden_layers": 4},
               backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 24, 32, 48], fusion_hidden_size=32,
               reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False)  # fmt: skip
yolos = pictures("YolosForObjectDetection", "logits pred_boxes", **{**_PICTURE, "image_size": [64, 64]},
                 num_detection_tokens=10)  # fmt: skip

# Texts
bert = texts("BertModel", "last_hidden_state pooler_output", **_TEXT)
bert_base = texts("BertModel", "last_hidden_state pooler_output")
distilbert = texts("DistilBertModel", vocab_size=VOCABULARY, dim=64, n_layers=3, n_heads=4, hidden_dim=128)
roberta = texts("RobertaForSequenceClassification", "logits", **_TEXT, pad_token_id=1)
electra = texts("ElectraForTokenClassification", "logits", **_TEXT, embedding_size=32)
albert = texts("AlbertModel", "last_hidden_state pooler_output", **_TEXT, embedding_size=32)
mpnet = texts("MPNetModel", **_TEXT)
deberta = texts("DebertaV2Model", **_TEXT, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"])
t5_encoder = texts("T5EncoderModel", vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4)
clip_text = texts("CLIPTextModelWithProjection", "text_embeds", **_TEXT, projection_dim=32, eos_token_id=499)
modernbert = texts("ModernBertModel", **{**_TEXT, "max_position_embeddings": 128}, pad_token_id=0, bos_token_id=1,
                   eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=8)  # fmt: skip

# Decoder steps
gpt2 = decoders("GPT2LMHeadModel", vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=64)
opt = decoders("OPTForCausalLM", vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
               ffn_dim=128, max_position_embeddings=64, word_embed_proj_dim=64)  # fmt: skip
llama = decoders("LlamaForCausalLM", heads=2, **_LLAMA)
qwen2 = decoders("Qwen2ForCausalLM", heads=2, **_LLAMA)
mistral = decoders("MistralForCausalLM", heads=2, **_LLAMA, sliding_window=None)
gpt_neox = decoders("GPTNeoXForCausalLM", **_narrow())

# Sounds
wav2vec2 = sounds(Heard, "Wav2Vec2ForCTC", (2, 4000), "logits", **_HUBERT, vocab_size=32)
hubert = sounds(Heard, "HubertModel", (2, 4000), **_HUBERT)
whisper_encoder = sounds(
    Spectral, "WhisperModel", (2, 80, 200), part="encoder", vocab_size=VOCABULARY, d_model=64, encoder_layers=2,
    encoder_attention_heads=4, encoder_ffn_dim=128, decoder_layers=1, decoder_attention_heads=4,
    decoder_ffn_dim=64, max_source_positions=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=1,
)  # fmt: skip
spectrogram_transformer = sounds(
    Heard, "ASTForAudioClassification", (2, 64, 32), "logits", hidden_size=64, num_hidden_layers=2,
    num_attention_heads=4, intermediate_size=128, max_length=64, num_mel_bins=32, num_labels=10,
)  # fmt: skip


def detr() -> Pair:
    """Return a DETR: a ResNet, an encoder, a decoder of ten object queries; height and width are fixed."""
    backbone = hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                               layer_type="basic", out_features=["stage4"])  # fmt: skip
    config = hf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=64,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=10, num_labels=8,
    )  # fmt: skip
    body = _made("DetrForObjectDetection", config)
    return settled(Pictured(body, "logits", "pred_boxes"), {"pixel_values": _normal(2, 3, 96, 96)})


def mamba() -> Pair:
    """Return a Mamba: a selective state space in place of attention, as a plain scan."""
    config = hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, use_cache=False)
    body = _made("MambaModel", config)

    class Scanned(Called):
        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.call(input_ids=input_ids)

    return settled(Scanned(body, "last_hidden_state"), {"input_ids": _ids(2, 8)})
