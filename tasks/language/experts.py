"""Whether experts go together: policies of one SFT model have its vocabulary, and their adapters name one base."""

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tasks.language.models import has_tokenizer, model_folder, read_tokenizer

_ADAPTER = "adapter_config.json"


def expert_folder(source: str) -> Path | None:
    """The folder of an expert; None where it is one file, of which nothing more is known.

    Raises:
        ValueError: see `model_folder`.
    """
    one_file = re.fullmatch(r"hf:[^/@]+/[^/@]+/.+", source) or Path(source).expanduser().is_file()
    return None if one_file else model_folder(source)


def adapter_base(source: str) -> str:
    """The model that a LoRA adapter says it is of (`base_model_name_or_path`); "" where it does not, or is none.

    Raises:
        ValueError: no such folder, or its adapter_config.json is not JSON.
    """
    folder = expert_folder(source)
    if folder is None or not (path := folder / _ADAPTER).is_file():
        return ""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: {_ADAPTER}: not JSON ({error})") from error
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return base if isinstance(base, str) else ""


def check_same_base(named: Mapping[str, str]) -> None:
    """Adapters are changes of one model: added to another they are noise, whatever their shapes.

    Args:
        named: expert name -> source; those that do not say what they are of are left out.

    Raises:
        ValueError: two of them name different bases.
    """
    bases = {name: base for name, source in named.items() if (base := adapter_base(source))}
    for name, base in islice(bases.items(), 1, None):
        first, expected = next(iter(bases.items()))
        if _identity(base) != _identity(expected):
            raise ValueError(
                f"experts.{name}: its adapter was trained on {base}, that of experts.{first} on {expected}: adapters "
                f"are changes of one SFT model; train both on the same, or, where it is one model in two places, set "
                f"base_model_name_or_path in {_ADAPTER} alike"
            )


def _identity(base: str) -> str:
    """The same folder however it is written; names of the hub as they are."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base.rstrip("/")


def check_vocabulary(source: str, model: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """An expert that carries a tokenizer has the vocabulary of `model`, whose `tokenizer` is given.

    Raises:
        ValueError: it has another; sizes and the first differing tokens are given.
    """
    folder = expert_folder(source)
    if folder is None or not has_tokenizer(folder):
        return
    ours = {i: token for token, i in tokenizer.get_vocab().items()}
    theirs = {i: token for token, i in read_tokenizer(source).get_vocab().items()}
    if differing := sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i)):
        shown = ", ".join(f"{i} {theirs.get(i)!r} instead of {ours.get(i)!r}" for i in differing[:3])
        raise ValueError(
            f"{source}: was trained with another vocabulary than {model}: {len(theirs)} tokens instead of {len(ours)}, "
            f"{len(differing)} of them differ (by number: {shown}); use a policy of this SFT model"
        )
