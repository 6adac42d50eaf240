"""BERT-like encoders of transformers: sentence embeddings, and a part of classifiers with heads of their own.

Shape legend: B texts, T their tokens, N prompts, L tokens of a prompt, D hidden size.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.language.backbone import LanguageBackbone, Loading, about_model, empty_model, with_weights
from tasks.language.blocks import layer_map
from tasks.language.models import check_rows, read_tokenizer
from tasks.registry import near

#: How the vectors of a text's tokens become one: their mean, or that of the first token.
Pooling = Literal["mean", "cls"]
_POOLER = "pooler"
#: Factor of cosines: it leaves the answer as it is, and makes logits of probabilities.
LOGIT_SCALE = 30.0


class EncoderBackbone(LanguageBackbone):
    """An encoder on a device, and its tokenizer.

    The pooler of a classifier is a part of the model if the base's file holds it.
    """

    family = "encoder"

    def __init__(
        self, model: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: Pooling = "mean"
    ) -> None:
        """Take a loaded module; use `build` to make a backbone from weights.

        Args:
            model: source of its configuration and tokenizer, for errors.
            module: on its device, in its dtype, without a head.
            tokenizer: with a pad token.
            pooling: see `Pooling`.

        Raises:
            ValueError: if the module has no list of residual blocks.
        """
        super().__init__(model, module, tokenizer, layer_map(module))
        self.pooling, self.inputs = pooling, digest([self.inputs, "pooling", pooling])

    def embed(self, inputs: Mapping[str, Tensor], module: nn.Module | None = None) -> Tensor:
        """Return the L2-normalised embeddings of a batch of texts: float32 (B, D) on the model's device.

        Args:
            inputs: of the model; its `attention_mask` (B, T) is 0 at padding.
            module: a copy of the backbone's, to use in its place.
        """
        hidden_BTD: Tensor = (module or self.module)(**inputs).last_hidden_state
        if self.pooling == "cls":
            return F.normalize(hidden_BTD[:, 0].float(), dim=-1)
        mask_BT1 = inputs["attention_mask"][:, :, None].float()
        sums_BD = (hidden_BTD.float() * mask_BT1).sum(dim=1)
        return F.normalize(sums_BD / mask_BT1.sum(dim=1).clamp(min=1), dim=-1)

    def shared_with(self, body: PreTrainedModel) -> nn.Module:
        """Return this encoder for a classifier: its own modules, and the pooler of `body` where it has none.

        Args:
            body: the classifier's encoder.

        Raises:
            ValueError: if it is of another architecture.
        """
        ours, theirs = ({n: p.shape for n, p in m.named_parameters()} for m in (self.module, body))
        extra = theirs.keys() - ours.keys()
        if type(body) is not type(self.module) or any(not n.startswith(f"{_POOLER}.") for n in extra):
            raise ValueError(f"its encoder is a {type(body).__name__}, not the base's {type(self.module).__name__}")
        if wrong := [n for n, shape in theirs.items() if n in ours and ours[n] != shape]:
            raise ValueError(
                f"its {wrong[0]} is {tuple(theirs[wrong[0]])}, but the base's is {tuple(ours[wrong[0]])}: was it "
                "trained on another model?"
            )
        if not extra:
            return self.module
        shared = copy.copy(self.module)
        shared._modules = {**self.module._modules, _POOLER: body.get_submodule(_POOLER)}
        return shared


class PromptTower:
    """The base's side of zero-shot heads: embeddings of prompts, which stay the base's for all candidates.

    They are computed in float32 on the CPU, so that every worker has the same head.
    """

    def __init__(self, backbone: EncoderBackbone, tokens: int) -> None:
        """Take a backbone that holds the base, and the number of tokens that a prompt has at most."""
        self._backbone, self._length, self.logit_scale = backbone, tokens, LOGIT_SCALE
        weights = (t for p in backbone.module.parameters() for t in (str(tuple(p.shape)), tensor_bytes(p)))
        self.fingerprint = digest([backbone.inputs, str(self.logit_scale), *weights])
        self._module: nn.Module | None = None

    def tokenize(self, prompts: Sequence[str], longer: int = 0) -> Tensor:
        """Return token ids (N, L + longer); longer prompts are cut, shorter ones padded."""
        tokenizer: Any = self._backbone.tokenizer
        found = tokenizer(
            list(prompts),
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self._length + longer,
            return_tensors="pt",
        )
        tokens_NL: Tensor = found["input_ids"]
        return tokens_NL

    def encode(self, tokens_BL: Tensor) -> Tensor:
        """Return L2-normalised embeddings, float32 on the CPU, of shape (B, D)."""
        if self._module is None:
            self._module = copy.deepcopy(self._backbone.module).to("cpu", torch.float32)
        mask_BL = (tokens_BL != self._backbone.tokenizer.pad_token_id).long()
        return self._backbone.embed({"input_ids": tokens_BL, "attention_mask": mask_BL}, self._module)


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> EncoderBackbone:
    """Build the encoder with the base's weights, copied from `state`.

    Args:
        model: source of config.json and tokenizer (see `model_folder`).
        state: the base, bare or with a head, which is left out.
        device: of the model.
        dtype: of its weights and activations; embeddings are float32.
        options: `pooling`: mean (the default) or cls; and those of causal models.

    Raises:
        ValueError: if the model is no encoder, an option is unknown, the tokenizer has no pad token, or the weights do
            not fit.
    """
    options = options or {}
    loading, pooling = Loading.of(options, ("pooling",)), _pooling(options.get("pooling", "mean"))
    with about_model():
        tokenizer = _tokenizer(model)
        empty = empty_model(model, EncoderBackbone.family, loading)
        check_rows(tokenizer, model, empty)
        layer_map(empty)
    pooled = any(f".{_POOLER}." in f".{name}" for name in state)
    module = with_weights(empty, state, device, dtype, loading, () if pooled else (_POOLER,))
    return EncoderBackbone(model, module, tokenizer, pooling).loaded(state, loading)


def _pooling(value: object) -> Pooling:
    if value not in get_args(Pooling):
        raise ValueError(
            f"backbone.options.pooling: must be mean or cls, got {value!r}; {near(str(value), get_args(Pooling))}"
        )
    return cast(Pooling, value)


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    tokenizer = read_tokenizer(model)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"tokenizer of {model}: has no pad token: set one, and save the tokenizer with it")
    return tokenizer


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor's numbers, in order."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()
