"""Tensor names of language models: from a checkpoint's names to the module's parameters.

Checkpoints of the bare model lack the prefix (`h.0.attn.c_attn.weight` of the published GPT-2). Some also hold the
output weight that is tied to the embeddings, or buffers that older versions of transformers saved.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tasks.lora import WeightPart
from tasks.name_matching import NameMatch, match_names
from tasks.tensors import check_tensors, first_names

logger = logging.getLogger(__name__)

#: Of BERT-like models: between the encoder and a classifier's head.
_POOLER = re.compile(r"(.*\.)?pooler\..*")
_OLD_BUFFERS = re.compile(r"(.*\.)?((attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq)|n_averaged")


@dataclass(frozen=True)
class TensorNames:
    """The names of a model's tensors.

    Attributes:
        shapes: shape of each parameter, tied ones once, in the module's order.
        tied: other names of tied parameters -> their name in `shapes`.
        buffers: names of tensors that are not weights.
        prefix: of the bare model within the whole one, for example "model.".
        embeddings: the parameter with one row a token; "" if the model reads images.
        vocabulary: all parameters with one row a token: the embeddings, and the output's weight and bias.
        linear: names of the linear modules.
        ignored: pattern of names in checkpoints that the model does not use, by its class in transformers.
        whole: whether the module has its head; of the bare model, the heads of checkpoints are left out.
    """

    shapes: Mapping[str, torch.Size]
    tied: Mapping[str, str]
    buffers: Collection[str]
    prefix: str
    embeddings: str
    vocabulary: Collection[str]
    linear: Collection[str]
    ignored: re.Pattern[str]
    whole: bool

    @classmethod
    def of(cls, module: PreTrainedModel) -> "TensorNames":
        """Read the names of a module, which may be on the meta device."""
        first = {id(p): name for name, p in module.named_parameters()}
        untyped: Any = module
        outputs = untyped.get_output_embeddings()
        table = _table(module)
        rows = [*(table.parameters() if table else ()), *(outputs.parameters() if outputs is not None else ())]
        every = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
        return cls(
            shapes={name: p.shape for name, p in module.named_parameters()},
            tied={name: to for name, to in every.items() if name != to},
            buffers=frozenset(name for name, _ in module.named_buffers()),
            prefix=f"{module.base_model_prefix}.",
            embeddings=first[id(table.weight)] if table else "",
            vocabulary=frozenset(first[id(p)] for p in rows if id(p) in first),
            linear=frozenset(name for name, m in module.named_modules() if isinstance(m, nn.Linear | Conv1D)),
            ignored=re.compile("|".join(sorted(module._keys_to_ignore_on_load_unexpected or ())) or "(?!)"),
            whole=outputs is not None or module.base_model is not module,
        )

    def select(
        self, state: Mapping[str, Tensor], source: str, base: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Select exactly the parameters' tensors from a checkpoint, with or without the prefix or those of wrappers.

        Args:
            state: of the checkpoint.
            source: where it came from, for errors.
            base: the base's `vocabulary`: an expert with fewer tokens gets its rows, and rows beyond it are left out;
                None if every checkpoint must have the same vocabulary.

        Raises:
            ValueError: if tensors are missing, unexpected, mis-shaped or not floating-point, or a second copy of tied
                weights differs; the first names are given.
        """
        found, copies = self._matched(state)
        if base is not None:
            found = {name: _shared_rows(tensor, base.get(name), source) for name, tensor in found.items()}
            copies = {name: _shared_rows(tensor, base.get(self.tied[name]), source) for name, tensor in copies.items()}
        self._check(found, source)
        for name, tensor in copies.items():
            if not torch.equal(tensor, found[self.tied[name]]):
                raise ValueError(
                    f"{source}: {name} differs from {self.tied[name]}, to which the model's config.json ties it: set "
                    "tie_word_embeddings to false there, in the SFT model's and all experts'"
                )
        return {name: found[name] for name in self.shapes}

    def weight_parts(self, modules: Iterable[str], source: str) -> dict[str, WeightPart]:
        """Find the weight of each linear module.

        Raises:
            ValueError: if a name is not a linear module, or its weight is tied; the first names are given.
        """
        parts = {module: f"{self._known(module, self.linear)}.weight" for module in modules}
        if tied := [module for module, name in parts.items() if name in self.tied]:
            raise ValueError(
                f"{source}: changes {tied[0]}, whose weight is tied to {self.tied[parts[tied[0]]]}: its factors would "
                "change both; train without it"
            )
        if strange := self.not_linear(parts):
            raise ValueError(
                f"{source}: changes {first_names(strange)}: not a linear module of the model; was it trained on "
                "another architecture?"
            )
        return {module: WeightPart(name) for module, name in parts.items()}

    def not_linear(self, modules: Iterable[str]) -> list[str]:
        """Return those of an adapter's modules that are no linear modules of the model."""
        return [module for module in modules if self._known(module, self.linear) not in self.linear]

    def untied(self, state: Mapping[str, Tensor]) -> list[str]:
        """Return the second names of tied weights of which a checkpoint holds two different tensors of equal shape."""
        found, copies = self._matched(state)
        pairs = [(name, tensor, found[self.tied[name]]) for name, tensor in copies.items()]
        return [name for name, a, b in pairs if a.shape == b.shape and not torch.equal(a, b)]

    def lacks(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether a checkpoint lacks parameters."""
        found, _ = self._matched(state)
        return not self.shapes.keys() <= found.keys()

    def strange(self, names: Iterable[str]) -> list[str]:
        """Return the names of a checkpoint that no part of the model has; heads are no part of the bare model."""
        return [name for name in self.weights(names) if self.whole or name.startswith(self.prefix)]

    def weights(self, names: Iterable[str]) -> list[str]:
        """Return the names of a checkpoint without those of buffers and other tensors that are no weights."""
        return [name for name in names if not self._needless(name)]

    def _matched(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return a checkpoint's tensors by the names of parameters, unknown ones included, and those of tied names."""
        found: dict[str, Tensor] = {}
        copies: dict[str, Tensor] = {}
        known = {**self.shapes, **{name: self.shapes[to] for name, to in self.tied.items()}}
        match = match_names({name: tensor.shape for name, tensor in state.items()}, known)
        named = {given: name for name, given in match.names.items()}
        heads = self._heads(state, match)
        for given, tensor in state.items():
            if given in match.copies or given in heads:
                continue
            name = named.get(given) or self._known(given)
            if name in self.tied:
                copies[name] = tensor
            elif name in self.shapes or not self._needless(name):
                found[name] = tensor
        # An old checkpoint may hold only copies; the output's, which may differ, comes last.
        return {self.tied[name]: copies[name] for name in reversed(copies)} | found, copies

    def _heads(self, state: Mapping[str, Tensor], match: NameMatch) -> set[str]:
        """Return the tensors of a checkpoint that are of a head, if the module is the bare model."""
        if self.whole:
            return set()
        outside = {given for given in state if _POOLER.fullmatch(given)} - set(match.names.values())
        around = {given.removesuffix(name) for name, given in match.names.items() if given.endswith(name)}
        if (prefix := min(around, key=len, default="")) and len(match.names) > len(self.shapes) / 2:
            outside |= {given for given in state if not given.startswith(prefix)}
        return outside

    def _needless(self, name: str) -> bool:
        """Return whether a tensor is no weight, also under a wrapper's prefix."""
        buffer = any(f".{name}".endswith(f".{known}") for known in self.buffers)
        return buffer or bool(_OLD_BUFFERS.fullmatch(name) or self.ignored.search(name))

    def _known(self, name: str, known: Collection[str] = ()) -> str:
        """Add or remove the prefix if the name is known only so; unknown names stay unchanged."""
        names = (known,) if known else (self.shapes, self.tied, self.buffers)
        spellings = (name, self.prefix + name, name.removeprefix(self.prefix))
        return next((spelling for spelling in spellings if any(spelling in some for some in names)), name)

    def _check(self, state: Mapping[str, Tensor], source: str) -> None:
        self._check_vocabulary(state, source)
        check_tensors(state, self.shapes, source)

    def _check_vocabulary(self, state: Mapping[str, Tensor], source: str) -> None:
        if not self.embeddings:
            return
        (rows, width), found = self.shapes[self.embeddings], state.get(self.embeddings)
        if found is not None and found.ndim == 2 and found.shape[0] != rows and found.shape[1] == width:
            raise ValueError(
                f"{source}: was trained with another vocabulary: its {self.embeddings} has {found.shape[0]} tokens, "
                f"the model's {rows}; the SFT model and all experts need the same tokenizer, and no tokens added "
                "later; or set backbone.options.vocabulary: shared, to merge the tokens that both have"
            )


def _table(module: PreTrainedModel) -> nn.Embedding | None:
    """Return the embeddings of tokens; None for a model of images."""
    try:
        table = module.get_input_embeddings()
    except NotImplementedError:
        return None
    return table if isinstance(table, nn.Embedding) else None


def _shared_rows(tensor: Tensor, base: Tensor | None, source: str) -> Tensor:
    """Cut a tensor with one row a token to the base's rows, or give it the base's where it has none."""
    if base is None or tensor.shape[1:] != base.shape[1:] or len(tensor) == len(base):
        return tensor
    logger.warning(
        "%s: has %d tokens, the base %d: the first %d are merged",
        source,
        len(tensor),
        len(base),
        min(len(tensor), len(base)),
    )
    return torch.cat([tensor[: len(base)], base[len(tensor) :].to(tensor)])
