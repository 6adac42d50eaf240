"""The block names of model families, which docs/reference/families.md lists.

A marker is a name inside a block that other families with the same numbers do not have. Only numbers that no other
family has, as GPT-2's `h.0.`, need none.
"""

from tasks.block_names import IMAGE_TOWERS, BlockNames

#: Prefixes of the bare model in Hugging Face models with a head.
_HEADS = (
    r"(?:(?:bert|roberta|electra|deberta|mpnet|esm|longformer|data2vec_text|timesformer|videomae|vit|deit|beit|dinov2|ast|"
    r"audio_spectrogram_transformer|convnext|convnextv2|resnet|swin|swinv2|wav2vec2|hubert|wavlm|model)\.)?"
)

_CLIP = (
    *IMAGE_TOWERS,
    BlockNames("open_clip ViT, tower alone", r"(?:text\.)?(?:transformer\.)?resblocks\.(\d+)\.", unless=r"visual\."),
    BlockNames(
        "Hugging Face CLIP, image tower",
        r"vision_model\.encoder\.layers\.(\d+)\.",
        r"(?:self_attn|attention)\.q_proj\.",
        outside=r"text_model\.(?:\w+\.)?encoder\.",
    ),
    BlockNames("Hugging Face CLIP, text tower alone", r"text_model\.encoder\.layers\.(\d+)\.", r"self_attn\.q_proj\."),
    BlockNames("Hugging Face CLIP, tower alone", r"encoder\.layers\.(\d+)\.", r"layer_norm1\."),
)

_VISION = (
    BlockNames("timm ConvNeXt", r"(?:trunk\.)?stages\.(\d+)\.blocks\.(\d+)\.", r"(?:conv_dw\.|gamma$)"),
    BlockNames(
        "timm stages of blocks",
        r"stages\.(\d+)\.blocks\.(\d+)\.",
        unless=r"stages\.\d+\.blocks\.\d+\.(?:conv_dw\.|gamma$|attention\.q_proj\.)",
    ),
    BlockNames("timm ViT", r"(?:trunk\.)?blocks\.(\d+)\.", r"attn\.(?:qkv|q_proj|proj)\."),
    BlockNames("timm MLP-Mixer or ResMLP", r"blocks\.(\d+)\.", r"(?:mlp_tokens|linear_tokens)\."),
    BlockNames("timm Swin", r"(?:trunk\.)?layers\.(\d+)\.blocks\.(\d+)\.", r"attn\.qkv\."),
    BlockNames(
        "timm EfficientNet or MobileNet", r"blocks\.(\d+)\.(\d+)\.", r"(?:conv_dw|conv_pw|dw_start|dw_mid|conv_exp)\."
    ),
    BlockNames("ResNet", r"layer(\d+)\.(\d+)\.", r"bn1\.", gaps=True),
    BlockNames("torchvision ViT", r"encoder\.layers\.encoder_layer_(\d+)\.", r"self_attention\."),
    BlockNames("torchvision Swin", r"features\.(\d+)\.(\d+)\.(?=norm1|attn|norm2|mlp)", r"attn\.", gaps=True),
    BlockNames("torchvision ConvNeXt", r"features\.(\d+)\.(\d+)\.(?=block\.|layer_scale$)", r"layer_scale$", gaps=True),
    BlockNames("torchvision EfficientNet", r"features\.(\d+)\.(\d+)\.(?=block\.)", r"block\.\d+\.\d+\.", gaps=True),
    BlockNames("Hugging Face ConvNeXt", _HEADS + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"dwconv\."),
    BlockNames(
        "Hugging Face ResNet", _HEADS + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"layer\.\d+\.convolution\."
    ),
    BlockNames(
        "Hugging Face stages of layers",
        r"(?:\w+\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        r"(?:attention|attn|modulation|conv1)\.",
    ),
    BlockNames("Hugging Face Swin", _HEADS + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"attention\."),
    BlockNames("Hugging Face Segformer", r"(?:segformer\.)?encoder\.block\.(\d+)\.(\d+)\.", r"attention\."),
    BlockNames("Hugging Face Segformer", r"(?:segformer\.)?stages\.(\d+)\.blocks\.(\d+)\.", r"attention\.q_proj\."),
    BlockNames("Hugging Face ViT", _HEADS + r"layers\.(\d+)\.", r"layernorm_before\."),
    BlockNames("Hugging Face DINOv3", _HEADS + r"layer\.(\d+)\.", r"layer_scale1\."),
)

#: T5: the decoder is scaled (section 5.2.2), and everything else gets alpha.
_LANGUAGE_AND_SPEECH = (
    BlockNames("Hugging Face BERT or ViT", _HEADS + r"encoder\.layer\.(\d+)\.", r"(?:attention|intermediate|output)\."),
    BlockNames("DistilBERT", r"(?:distilbert\.)?(?:transformer\.)?layer\.(\d+)\.", r"attention\.q_lin\."),
    BlockNames("ModernBERT", r"layers\.(\d+)\.", r"attn\.Wqkv\."),
    BlockNames("XLNet", r"layer\.(\d+)\.", r"rel_attn\."),
    BlockNames("Llama, Mistral or Qwen", r"layers\.(\d+)\.", r"(?:self_attn\.(?:o_proj|dense)|mlp\.up_proj)\."),
    BlockNames("GPT-2, GPT-J, GPT-Neo, Falcon or Bloom", r"h\.(\d+)\."),
    BlockNames("GPT-NeoX", r"(?:gpt_neox\.)?layers\.(\d+)\.", r"attention\.query_key_value\."),
    BlockNames("MPT", r"blocks\.(\d+)\.", r"attn\.Wqkv\."),
    BlockNames("OPT, or BART's decoder alone", r"decoder\.layers\.(\d+)\.", r"self_attn_layer_norm\."),
    BlockNames("RWKV", r"(?:rwkv\.)?blocks\.(\d+)\.", r"att(?:ention)?\.receptance\."),
    BlockNames("Mamba", r"layers\.(\d+)\.", r"mixer\.(?:A_log|in_proj)"),
    BlockNames("T5, decoder", r"decoder\.block\.(\d+)\.", r"layer\.\d+\.", outside=r"encoder\.block\."),
    BlockNames("T5, encoder alone", r"encoder\.block\.(\d+)\.", r"layer\.\d+\.SelfAttention\."),
    BlockNames("Whisper, BART or Conformer, encoder alone", r"encoder\.layers\.(\d+)\.", r"self_attn_layer_norm\."),
    BlockNames("wav2vec 2.0, HuBERT or WavLM", _HEADS + r"encoder\.layers\.(\d+)\.", r"feed_forward\."),
)

LAYOUTS = (*_CLIP, *_VISION, *_LANGUAGE_AND_SPEECH)
