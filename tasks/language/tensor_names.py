"""Tensor names of causal language models: from a checkpoint's names to the module's parameters and blocks.

Checkpoints of the bare model lack the prefix (`h.0.attn.c_attn.weight` of the published GPT-2). Some also hold the
output weight that is tied to the embeddings, or buffers that older versions of transformers saved.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tasks.base import LayerMap
from tasks.lora import WeightPart
from tasks.name_matching import match_names
from tasks.stacks import find_stacks
from tasks.tensors import check_tensors, first_names

_OLD_BUFFERS = re.compile(r"(.*\.)?((attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq)|n_averaged")


@dataclass(frozen=True)
class TensorNames:
    """The names of a model's tensors.

    Attributes:
        shapes: shape of each parameter, tied ones once, in the module's order.
        tied: other names of tied parameters -> their name in `shapes`.
        buffers: names of tensors that are not weights.
        prefix: of the bare model within the whole one, for example "model.".
        embeddings: the parameter with one row a token.
        linear: names of the linear modules.
    """

    shapes: Mapping[str, torch.Size]
    tied: Mapping[str, str]
    buffers: Collection[str]
    prefix: str
    embeddings: str
    linear: Collection[str]

    @classmethod
    def of(cls, module: PreTrainedModel) -> "TensorNames":
        """Read the names of a module, which may be on the meta device."""
        first = {id(p): name for name, p in module.named_parameters()}
        every = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
        return cls(
            shapes={name: p.shape for name, p in module.named_parameters()},
            tied={name: to for name, to in every.items() if name != to},
            buffers=frozenset(name for name, _ in module.named_buffers()),
            prefix=f"{module.base_model_prefix}.",
            embeddings=first[id(module.get_input_embeddings().weight)],
            linear=frozenset(name for name, m in module.named_modules() if isinstance(m, nn.Linear | Conv1D)),
        )

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select exactly the parameters' tensors from a checkpoint, with or without the prefix or those of wrappers.

        Raises:
            ValueError: if tensors are missing, unexpected, mis-shaped or not floating-point, or a second copy of tied
                weights differs; the first names are given.
        """
        found: dict[str, Tensor] = {}
        copies: dict[str, Tensor] = {}
        known = {**self.shapes, **{name: self.shapes[to] for name, to in self.tied.items()}}
        match = match_names({name: tensor.shape for name, tensor in state.items()}, known)
        named = {given: name for name, given in match.names.items()}
        for given, tensor in state.items():
            if given in match.copies:
                continue
            name = named.get(given) or self._known(given)
            if name in self.tied:
                copies[name] = tensor
            elif name in self.shapes or not (name in self.buffers or _OLD_BUFFERS.fullmatch(name)):
                found[name] = tensor
        # An old checkpoint may hold only the output's copy.
        found = {self.tied[name]: tensor for name, tensor in copies.items()} | found
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
        linear = {f"{name}.weight" for name in self.linear}
        if strange := [module for module, name in parts.items() if name not in linear]:
            raise ValueError(
                f"{source}: changes {first_names(strange)}: not a linear module of the model; was it trained on "
                "another architecture?"
            )
        return {module: WeightPart(name) for module, name in parts.items()}

    def _known(self, name: str, known: Collection[str] = ()) -> str:
        """Add the prefix if the name is known only with it; unknown names stay unchanged."""
        names = (known,) if known else (self.shapes, self.tied, self.buffers)
        if not any(name in some for some in names) and any(self.prefix + name in some for some in names):
            return self.prefix + name
        return name

    def _check(self, state: Mapping[str, Tensor], source: str) -> None:
        self._check_vocabulary(state, source)
        check_tensors(state, self.shapes, source)

    def _check_vocabulary(self, state: Mapping[str, Tensor], source: str) -> None:
        (rows, width), found = self.shapes[self.embeddings], state.get(self.embeddings)
        if found is not None and found.ndim == 2 and found.shape[0] != rows and found.shape[1] == width:
            raise ValueError(
                f"{source}: was trained with another vocabulary: its {self.embeddings} has {found.shape[0]} tokens, "
                f"the model's {rows}; the SFT model and all experts need the same tokenizer, and no tokens added later"
            )


def layer_map(module: nn.Module) -> LayerMap:
    """Number the residual blocks: the members of the list of modules with the most parameters.

    Raises:
        ValueError: if there is no list, its members are not all of one class, or another tower has blocks too.
    """
    lists = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise ValueError(f"{type(module).__name__}: has no nn.ModuleList that could be its residual blocks")
    prefix, blocks = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    if len(kinds := {type(block).__name__ for block in blocks}) > 1:
        raise ValueError(
            f"{type(module).__name__}: {prefix} holds blocks of several classes ({', '.join(sorted(kinds))}); depth "
            "is defined for blocks of one class"
        )
    names = {id(p): name for name, p in module.named_parameters()}
    found = {names[id(p)]: index for index, block in enumerate(blocks) for p in block.parameters()}
    others = [stack for stack in find_stacks(names.values()) if stack.attention and stack.names[0] not in found]
    if others:
        raise ValueError(
            f"{type(module).__name__}: has blocks in {prefix} and in {others[0].names[0]}; depth is defined for one of "
            "them: give the language model alone, without its other tower"
        )
    return LayerMap(found, len(blocks))
