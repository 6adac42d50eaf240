"""Find the residual blocks in the parameter names of known model families."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.base import LayerMap

#: Prefixes that training programs and task heads add to every name of a model.
_PREFIX = r"(?:(?:_orig_mod|module|model|base_model|backbone|transformer)\.)*"
_HEADS = r"(?:(?:bert|roberta|electra|vit|deit|convnext|convnextv2)\.)?"


@dataclass(frozen=True, slots=True)
class BlockNames:
    """The block names of a family.

    Attributes:
        description: for users.
        pattern: follows the prefix; its groups are the numbers that order the blocks.
        unless: pattern of names that rule this family out.
    """

    description: str
    pattern: str
    unless: str | None = None


#: A CLIP file has two stacks: the image tower is scaled and everything else gets alpha, as the authors do (their
#: checkpoints hold no text blocks). T5: the decoder is scaled (section 5.2.2), and everything else gets alpha.
LAYOUTS = (
    BlockNames("open_clip ViT, image tower", r"visual\.transformer\.resblocks\.(\d+)\."),
    BlockNames("open_clip ViT, tower alone", r"(?:text\.)?(?:transformer\.)?resblocks\.(\d+)\.", r"visual\."),
    BlockNames("open_clip ConvNeXt, image tower", r"visual\.trunk\.stages\.(\d+)\.blocks\.(\d+)\."),
    BlockNames("timm ViT in open_clip, image tower", r"visual\.trunk\.blocks\.(\d+)\."),
    BlockNames("timm ConvNeXt", r"(?:trunk\.)?stages\.(\d+)\.blocks\.(\d+)\.", r"visual\."),
    BlockNames("timm ViT", r"(?:trunk\.)?blocks\.(\d+)\.", r"visual\."),
    BlockNames("Hugging Face CLIP, image tower", r"vision_model\.encoder\.layers\.(\d+)\."),
    BlockNames("Hugging Face CLIP, text tower alone", r"text_model\.encoder\.layers\.(\d+)\.", r"vision_model\."),
    BlockNames(
        "Hugging Face CLIP, tower alone", r"encoder\.layers\.(\d+)\.(?:self_attn|mlp|layer_norm[12])\.", r"decoder\."
    ),
    BlockNames("Hugging Face ConvNeXt", _HEADS + r"encoder\.stages\.(\d+)\.layers\.(\d+)\."),
    BlockNames("Hugging Face BERT or ViT", _HEADS + r"encoder\.layer\.(\d+)\."),
    BlockNames("Hugging Face ViT", r"vit\.layers\.(\d+)\."),
    BlockNames("Llama, Mistral or Qwen", r"model\.layers\.(\d+)\."),
    BlockNames("GPT-2", r"h\.(\d+)\."),
    BlockNames("T5, decoder", r"decoder\.block\.(\d+)\."),
)


def detect(names: Iterable[str]) -> tuple[LayerMap, str]:
    """Find the residual blocks by the names of parameters.

    Returns:
        The layer map, and the layout's description.

    Raises:
        ValueError: if no known layout matches, or several do, or the blocks leave a gap.

    Example:
        >>> layer_map, layout = detect(["h.0.mlp.c_fc.weight", "h.1.mlp.c_fc.weight", "wte.weight"])
        >>> layout, layer_map.num_blocks
        ('GPT-2', 2)
    """
    names = list(names)
    found = [layout for layout in LAYOUTS if _matches(layout, names)]
    if len(found) != 1:
        what = (
            f"several layouts match ({', '.join(f.description for f in found)})" if found else "no known layout matches"
        )
        raise ValueError(
            f"blocks: {what} among {len(names)} names such as {', '.join(names[:3])}; give --blocks with a regular "
            r"expression whose group is the block's number, such as 'encoder\.layers\.(\d+)\.'"
        )
    return LayerMap.from_pattern(names, _PREFIX + found[0].pattern), found[0].description


def by_pattern(names: Iterable[str], pattern: str) -> LayerMap:
    """Find the blocks by a user's regular expression, matched at a name's start or after its wrapper prefixes.

    Args:
        names: of parameters.
        pattern: one group that is the block's number, or several that order the blocks, as a stage and a block do.

    Raises:
        ValueError: if the pattern is not a regular expression, has no group, matches nothing or leaves a gap, or if a
            group matches anything but digits.
    """
    names = list(names)
    try:
        compiled = re.compile(f"{_PREFIX}(?:{pattern})")
    except re.error as error:
        raise ValueError(f"blocks: {pattern!r} is not a regular expression: {error}") from error
    if compiled.groups == 0:
        raise ValueError(rf"blocks: {pattern!r} must have a group that is the block's number, such as (\d+)")
    for match in filter(None, map(compiled.match, names)):
        if not all(group and group.isdecimal() for group in match.groups()):
            raise ValueError(f"blocks: {pattern!r} must match digits, got {match.groups()} in {match.string!r}")
    return LayerMap.from_pattern(names, compiled.pattern)


def _matches(layout: BlockNames, names: list[str]) -> bool:
    if layout.unless and any(re.match(_PREFIX + layout.unless, name) for name in names):
        return False
    return any(re.match(_PREFIX + layout.pattern, name) for name in names)
