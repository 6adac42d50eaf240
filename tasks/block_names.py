"""Recognise the residual blocks of known model families by the names of their parameters."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.base import LayerMap, block_numbers, first_gap
from tasks.stacks import Stack

#: Prefixes that training programs and task heads add to every name of a model.
PREFIX = r"(?:(?:_orig_mod|module|net|network|model|base_model|backbone|transformer)\.)*"


#: A ResNet in front of a ViT.
_STEM = r"(?:.*\.)?patch_embed\."


@dataclass(frozen=True, slots=True)
class BlockNames:
    """The block names of a family.

    Attributes:
        description: for users.
        pattern: follows the prefix; its groups are the numbers that order the blocks.
        marker: follows the pattern in some names of this family, and of no other with the same numbers.
        unless: pattern of names that rule this family out.
        outside: pattern of the names of another tower, whose blocks get the coefficient outside the blocks.
        gaps: whether the family's own numbers begin above 0 or leave gaps.
    """

    description: str
    pattern: str
    marker: str = ""
    unless: str | None = None
    outside: str | None = None
    gaps: bool = False

    def fits(self, names: Iterable[str], stacks: Sequence[Stack]) -> bool:
        """Return whether names are of this family.

        Args:
            names: of a model's tensors, or one for each group of names that differ in numbers only.
            stacks: the model's stacks. One that this family does not know rules it out, since the model is a larger
                one of which this family is a part. Stems and heads do not: stacks without attention in a patch
                embedding, or with fewer tensors than the blocks (a quarter, if the blocks have no attention).
        """
        if self.unless and any(re.match(PREFIX + self.unless, name) for name in names):
            return False
        marked = re.compile(PREFIX + self.pattern + self.marker)
        if not any(map(marked.match, names)):
            return False
        known = [stack for stack in stacks if self._knows(stack)]
        others = [stack for stack in stacks if stack not in known]
        if any(stack.attention for stack in others):
            return False
        share = 1.0 if any(stack.attention for stack in known) else 0.25
        tensors = sum(len(stack.names) for stack in others if not re.match(_STEM, stack.names[0]))
        return tensors <= share * sum(len(stack.names) for stack in known)

    def layer_map(self, names: Iterable[str]) -> LayerMap:
        """Number the blocks.

        Raises:
            ValueError: if the blocks leave a gap that the family's own numbers do not have.
        """
        names, pattern = list(names), PREFIX + self.pattern
        gap = first_gap(sorted(set(block_numbers(names, pattern).values())))
        if gap and not self.gaps:
            raise ValueError(f"{self.description}: {gap}: blocks must be numbered without a gap")
        return LayerMap.from_pattern(names, pattern, gaps=True)

    def _knows(self, stack: Stack) -> bool:
        known = self.pattern if self.outside is None else f"(?:{self.pattern}|{self.outside})"
        return any(re.match(PREFIX + known, name) for name in stack.names)


#: Image towers of open_clip. A CLIP file has two stacks: the image tower is scaled and everything else gets alpha, as
#: the authors do (their checkpoints hold no text blocks).
_TEXT = r"(?!visual\.)"
IMAGE_TOWERS = (
    BlockNames("open_clip ViT, image tower", r"visual\.transformer\.resblocks\.(\d+)\.", outside=_TEXT),
    BlockNames(
        "open_clip ConvNeXt, image tower",
        r"visual\.trunk\.stages\.(\d+)\.blocks\.(\d+)\.",
        r"(?:conv_dw\.|gamma$)",
        outside=_TEXT,
    ),
    BlockNames(
        "open_clip FastViT, image tower",
        r"visual\.trunk\.stages\.(\d+)\.blocks\.(\d+)\.",
        r"token_mixer\.",
        outside=_TEXT,
    ),
    BlockNames("timm ViT in open_clip, image tower", r"visual\.trunk\.blocks\.(\d+)\.", r"attn\.", outside=_TEXT),
    BlockNames(
        "timm Swin in open_clip, image tower",
        r"visual\.trunk\.layers\.(\d+)\.blocks\.(\d+)\.",
        r"attn\.",
        outside=_TEXT,
    ),
    BlockNames("open_clip ResNet, image tower", r"visual\.layer(\d+)\.(\d+)\.", r"bn1\.", outside=".*", gaps=True),
)


def samples(names: Iterable[str]) -> list[str]:
    """Return one of all names that differ only in the numbers of modules, which saves time in a mixture of experts."""
    return list({re.sub(r"\.\d+(?=\.)", ".#", name): name for name in names}.values())


def recognise(layouts: Sequence[BlockNames], names: Sequence[str], stacks: Sequence[Stack]) -> list[BlockNames]:
    """Return the layouts that fit the names of a model's tensors; only one does if the model is of a known family."""
    some = samples(names)
    return [layout for layout in layouts if layout.fits(some, stacks)]
