"""Names of the tensors of model families, as the installed libraries give them.

Run it to write tests/data/block_names.json. Models are narrow and on the meta device, with the depth of published ones.
A family of transformers has two entries if `save_pretrained` writes other names than the module has.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "block_names.json"

_W = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
_T = _W | {"vocab_size": 100, "pad_token_id": 0}
_L = _T | {"num_key_value_heads": 2}
_SEQ2SEQ = {
    f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("attention_heads", 4), ("ffn_dim", 64))
}
_S = _SEQ2SEQ | {"d_model": 32, "vocab_size": 100, "pad_token_id": 1}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "vocab_size": 100}
_GPT2 = {"n_embd": 32, "n_head": 4, "vocab_size": 100}
_AUDIO = _T | {"conv_dim": [16] * 7, "num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 16}
_SWIN = {"embed_dim": 24, "num_heads": [3, 6, 12, 24]}
_SIZES = {"hidden_sizes": [8, 16, 32, 64]}

#: Family -> class of transformers and fields of its configuration.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("BertForPreTraining", _T),
    "RoBERTa": ("RobertaForMaskedLM", _T),
    "ALBERT": ("AlbertForMaskedLM", _T | {"embedding_size": 16}),
    "ELECTRA": ("ElectraForPreTraining", _T | {"embedding_size": 16}),
    "DeBERTa": ("DebertaForMaskedLM", _T),
    "DeBERTa-v3": ("DebertaV2ForMaskedLM", _T | {"num_hidden_layers": 12}),
    "DistilBERT": ("DistilBertForMaskedLM", {"dim": 32, "hidden_dim": 64, "n_heads": 4, "vocab_size": 100}),
    "MPNet": ("MPNetForMaskedLM", _T),
    "ESM-2": ("EsmForMaskedLM", _T | {"num_hidden_layers": 33}),
    "ModernBERT": ("ModernBertForMaskedLM", _T | {"cls_token_id": 1, "sep_token_id": 2}),
    "XLNet": ("XLNetLMHeadModel", {"d_model": 32, "n_head": 4, "d_inner": 64, "vocab_size": 100, "n_layer": 12}),
    "GPT-2": ("GPT2LMHeadModel", _GPT2),
    "GPT-2, bare": ("GPT2Model", _GPT2),
    "GPT-J": ("GPTJForCausalLM", _GPT2 | {"rotary_dim": 4}),
    "GPT-Neo": ("GPTNeoForCausalLM", {"hidden_size": 32, "num_heads": 4, "vocab_size": 100}),
    "GPT-NeoX, Pythia": ("GPTNeoXForCausalLM", _T | {"num_hidden_layers": 44}),
    "OPT": ("OPTForCausalLM", {"hidden_size": 32, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "Bloom": ("BloomForCausalLM", {"hidden_size": 32, "n_head": 4, "n_layer": 30, "vocab_size": 100}),
    "Falcon": ("FalconForCausalLM", {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 100}),
    "MPT": ("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 32, "vocab_size": 100}),
    "RWKV": ("RwkvForCausalLM", {"hidden_size": 32, "vocab_size": 100, "num_hidden_layers": 24}),
    "Mamba": ("MambaForCausalLM", {"hidden_size": 32, "vocab_size": 100, "num_hidden_layers": 24}),
    "Mamba-2": ("Mamba2ForCausalLM", {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "num_hidden_layers": 24}),
    "Llama": ("LlamaForCausalLM", _L),
    "Llama, bare": ("LlamaModel", _L),
    "Mistral": ("MistralForCausalLM", _L),
    "Mixtral": ("MixtralForCausalLM", _L),
    "Qwen2": ("Qwen2ForCausalLM", _L | {"num_hidden_layers": 24}),
    "Qwen3": ("Qwen3ForCausalLM", _L | {"num_hidden_layers": 28}),
    "Qwen3-MoE": ("Qwen3MoeForCausalLM", _L | {"num_hidden_layers": 4, "num_experts": 8}),
    "Gemma": ("GemmaForCausalLM", _L | {"num_hidden_layers": 18}),
    "Gemma 2": ("Gemma2ForCausalLM", _L),
    "Gemma 3, text alone": ("Gemma3ForCausalLM", _L | {"num_hidden_layers": 26}),
    "Phi-2": ("PhiForCausalLM", _L | {"num_hidden_layers": 32}),
    "Phi-3": ("Phi3ForCausalLM", _L),
    "OLMo 2": ("Olmo2ForCausalLM", _L),
    "T5": ("T5ForConditionalGeneration", _T5),
    "T5, encoder alone": ("T5EncoderModel", _T5),
    "BART": ("BartForConditionalGeneration", _S),
    "BART, decoder alone": ("BartForCausalLM", _S),
    "Pegasus": ("PegasusForConditionalGeneration", _S),
    "NLLB, M2M-100": ("M2M100ForConditionalGeneration", _S),
    "Whisper": ("WhisperForConditionalGeneration", _S),
    "Whisper, encoder with a classifier": ("WhisperForAudioClassification", _S),
    "wav2vec 2.0": ("Wav2Vec2ForCTC", _AUDIO),
    "HuBERT": ("HubertForCTC", _AUDIO),
    "WavLM": ("WavLMForCTC", _AUDIO),
    "AST": ("ASTForAudioClassification", _W),
    "CLAP": ("ClapModel", {}),
    "ViT": ("ViTForImageClassification", _W),
    "DeiT": ("DeiTForImageClassification", _W),
    "BEiT": ("BeitForImageClassification", _W),
    "MAE, pre-training": ("ViTMAEForPreTraining", _W),
    "DINOv2": ("Dinov2ForImageClassification", {"hidden_size": 32, "num_attention_heads": 4}),
    "DINOv3": ("DINOv3ViTModel", {"hidden_size": 32, "num_attention_heads": 4}),
    "Swin": ("SwinForImageClassification", _SWIN),
    "Swin V2": ("Swinv2ForImageClassification", _SWIN),
    "Segformer": ("SegformerForSemanticSegmentation", {}),
    "ConvNeXt": ("ConvNextForImageClassification", _SIZES),
    "ConvNeXt V2": ("ConvNextV2ForImageClassification", _SIZES),
    "ResNet": ("ResNetForImageClassification", {}),
    "EfficientNet": ("EfficientNetForImageClassification", {"depth_coefficient": 1.0}),
    "FocalNet": ("FocalNetForImageClassification", {}),
    "PVT v2": ("PvtV2ForImageClassification", {}),
    "VideoMAE": ("VideoMAEForVideoClassification", _W),
    "DETR": ("DetrForObjectDetection", {}),
    "RT-DETR": ("RTDetrForObjectDetection", {}),
    "DAC": ("DacModel", {}),
    "TVP": ("TvpModel", {}),
    "CLIP": ("CLIPModel", {}),
    "CLIP, image tower": ("CLIPVisionModelWithProjection", {}),
    "CLIP, image tower, transformers 5": ("CLIPVisionModel", {}),
    "CLIP, text tower": ("CLIPTextModel", {}),
    "CLIP, classifier": ("CLIPForImageClassification", {}),
    "SigLIP": ("SiglipModel", {}),
    "SigLIP, image tower": ("SiglipVisionModel", {}),
    "Chinese-CLIP": ("ChineseCLIPModel", {}),
    "AltCLIP": ("AltCLIPModel", {}),
    "ALIGN": ("AlignModel", {}),
    "BLIP": ("BlipForConditionalGeneration", {}),
    "BLIP-2": ("Blip2ForConditionalGeneration", {}),
    "LLaVA": ("LlavaForConditionalGeneration", {}),
    "PaliGemma": ("PaliGemmaForConditionalGeneration", {}),
    "Gemma 3": ("Gemma3ForConditionalGeneration", {}),
    "Qwen2-VL": ("Qwen2VLForConditionalGeneration", {}),
    "Idefics 3": ("Idefics3ForConditionalGeneration", {}),
}

TIMM = {
    "ViT": "vit_base_patch16_224", "DeiT": "deit_base_distilled_patch16_224", "BEiT v2": "beitv2_base_patch16_224",
    "EVA-02": "eva02_base_patch14_224", "DINOv2": "vit_small_patch14_reg4_dinov2",
    "SigLIP": "vit_base_patch16_siglip_224",
    "ViT with a ResNet": "vit_base_r50_s16_224", "Hiera": "hiera_tiny_224", "MLP-Mixer": "mixer_b16_224",
    "CaiT": "cait_s24_224", "Swin": "swin_tiny_patch4_window7_224", "ConvNeXt": "convnext_tiny",
    "ConvNeXt V2": "convnextv2_tiny", "PVT v2": "pvt_v2_b1", "FastViT": "fastvit_t8", "MaxViT": "maxvit_tiny_rw_224",
    "EfficientFormer": "efficientformer_l1", "EfficientNet": "efficientnet_b0",
    "EfficientNet V2": "tf_efficientnetv2_s",
    "MobileNet V3": "mobilenetv3_large_100", "MobileNet V4": "mobilenetv4_conv_small", "ResNet": "resnet50",
    "HRNet": "hrnet_w18", "RegNet": "regnety_016", "Twins": "twins_pcpvt_small",
}  # fmt: skip

TORCHVISION = {
    "ResNet-18": "resnet18", "ResNet-50": "resnet50", "ViT": "vit_b_16", "Swin": "swin_t", "Swin V2": "swin_v2_t",
    "ConvNeXt": "convnext_tiny", "EfficientNet": "efficientnet_b0", "MobileNet V2": "mobilenet_v2",
    "MobileNet V3": "mobilenet_v3_large", "MaxViT": "maxvit_t", "VGG": "vgg16",
}  # fmt: skip

OPEN_CLIP = {
    "ViT": "ViT-B-32", "RN50": "RN50", "ConvNeXt": "convnext_base", "SigLIP": "ViT-B-16-SigLIP", "EVA-02": "EVA02-B-16",
    "MobileCLIP": "MobileCLIP-S1", "CoCa": "coca_ViT-B-32", "Swin": "swin_base_patch4_window7_224",
}  # fmt: skip


def read() -> dict[str, tuple[str, list[str]]]:
    """Return library and family -> (class or model, names of the tensors)."""
    stored = json.loads(DATA.read_text())
    return {family: (entry["of"], list(_expand(entry["names"]))) for family, entry in stored.items()}


def _expand(templates: Iterable[str]) -> Iterator[str]:
    """Write out `[0-11]` and `{bias,weight}` in each name."""
    for template in templates:
        if match := re.search(r"\[(\d+)-(\d+)\]|\{(.*?)\}", template):
            choices = match[3].split(",") if match[3] else range(int(match[1]), int(match[2]) + 1)
            yield from _expand(f"{template[: match.start()]}{choice}{template[match.end() :]}" for choice in choices)
        else:
            yield template


def _shorten(names: Iterable[str]) -> list[str]:
    """Write runs of numbers as `[0-11]`, from the last number of a name to its first, and last parts in one."""
    short = set(names)
    for place in reversed(range(max(name.count(".") + 1 for name in short))):
        runs: dict[tuple[str, str], list[int]] = defaultdict(list)
        rest = set()
        for name in short:
            parts = name.split(".")
            if place < len(parts) and parts[place].isdecimal():
                runs[".".join([*parts[:place], ""]), ".".join(["", *parts[place + 1 :]])].append(int(parts[place]))
            else:
                rest.add(name)
        short = rest | {f"{a}{run}{b}" for (a, b), found in runs.items() for run in _runs(sorted(found))}
    ends: dict[str, list[str]] = defaultdict(list)
    for name in sorted(short):
        module, _, end = name.rpartition(".")
        ends[module].append(end)
    one = {module: found[0] if len(found) == 1 else f"{{{','.join(found)}}}" for module, found in ends.items()}
    return [f"{module}.{end}".lstrip(".") for module, end in one.items()]


def _runs(numbers: list[int]) -> Iterator[str]:
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        first, *_, last = (run := [number for _, number in group])[0], run[-1]
        yield str(first) if first == last else f"[{first}-{last}]"


def _of_transformers() -> Iterator[tuple[str, str, Any]]:
    import transformers
    from transformers.core_model_loading import revert_weight_conversion

    for family, (name, fields) in TRANSFORMERS.items():
        cls = getattr(transformers, name)
        config = cls.config_class(**fields)
        model = cls(config)
        yield f"transformers: {family}", name, model.state_dict()
        saved = revert_weight_conversion(model, dict(model.state_dict()))
        # transformers 5.23 gives MAE's decoder and AltCLIP names that no published file has.
        if set(saved) != set(model.state_dict()) and family not in ("MAE, pre-training", "AltCLIP"):
            yield f"transformers: {family}, saved", name, saved


def _of_open_clip() -> Iterator[tuple[str, str, Any]]:
    import open_clip

    for family, name in OPEN_CLIP.items():
        config = dict(open_clip.get_model_config(name))
        custom = config.pop("custom_text", False)
        kind: Callable[..., Any] = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        yield f"open_clip: {family}", name, (open_clip.CoCa if family == "CoCa" else kind)(**config).state_dict()


def main() -> None:
    """Write the names of all families."""
    import timm
    import torch
    import torchvision

    entries = {}
    with torch.device("meta"):
        found = [
            *_of_open_clip(),
            *_of_transformers(),
            *((f"timm: {family}", name, timm.create_model(name).state_dict()) for family, name in TIMM.items()),
            *(
                (f"torchvision: {family}", name, getattr(torchvision.models, name)().state_dict())
                for family, name in TORCHVISION.items()
            ),
        ]
    for family, name, state in found:
        names = [tensor_name for tensor_name, tensor in state.items() if tensor.is_floating_point()]
        entries[family] = {"of": name, "names": _shorten(names)}
        assert set(_expand(entries[family]["names"])) == set(names)
    lines = (f"{json.dumps(family)}: {json.dumps(entry)}" for family, entry in entries.items())
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
