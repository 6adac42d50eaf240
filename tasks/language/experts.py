"""Compatibility of experts: policies must have the SFT model's vocabulary, and their adapters the same base."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tasks.files.json_files import read_object
from tasks.language.models import has_tokenizer, read_tokenizer_in

_ADAPTER = "adapter_config.json"


def adapter_base(folder: Path, source: str) -> str:
    """Return the model that a LoRA adapter names as its base (`base_model_name_or_path`); "" without one.

    Args:
        folder: of the adapter, or of any model.
        source: as the user wrote it, for errors.

    Raises:
        ValueError: if its adapter_config.json is not a mapping in JSON.
    """
    if not (path := folder / _ADAPTER).is_file():
        return ""
    base = read_object(path, f"{source}: {_ADAPTER}").get("base_model_name_or_path")
    return base if isinstance(base, str) else ""


def check_same_base(bases: Mapping[str, str]) -> None:
    """Check that adapters are changes of one model: added to another they are noise, whatever their shapes.

    Args:
        bases: expert name -> its `adapter_base`; experts without one are left out.

    Raises:
        ValueError: if two of them name different bases.
    """
    named = {name: base for name, base in bases.items() if base}
    for name, base in islice(named.items(), 1, None):
        first, expected = next(iter(named.items()))
        if _identity(base) != _identity(expected):
            raise ValueError(
                f"experts.{name}: its adapter was trained on {base}, that of experts.{first} on {expected}: adapters "
                f"are changes of one SFT model; train both on the same, or, if it is one model in two places, set "
                f"base_model_name_or_path in {_ADAPTER} to the same value"
            )


def _identity(base: str) -> str:
    """Return a folder's resolved path, or a hub name unchanged."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base.rstrip("/")


def check_vocabulary(
    folder: Path, source: str, model: str, tokenizer: PreTrainedTokenizerBase, shared: bool = False
) -> None:
    """Check that an expert whose folder holds a tokenizer has the vocabulary of `model`, whose `tokenizer` is given.

    Args:
        folder: of the expert.
        source: of the expert, for errors.
        model: the base.
        tokenizer: of the base.
        shared: whether one of the two may have more tokens than the other; tokens of one number must be equal.

    Raises:
        ValueError: if it has another; sizes and the first differing tokens are given.
    """
    if not has_tokenizer(folder):
        return
    ours = {i: token for token, i in tokenizer.get_vocab().items()}
    theirs = {i: token for token, i in read_tokenizer_in(folder, source).get_vocab().items()}
    numbers = ours.keys() & theirs.keys() if shared else ours.keys() | theirs.keys()
    if differing := sorted(i for i in numbers if ours.get(i) != theirs.get(i)):
        examples = ", ".join(f"{i} {theirs.get(i)!r} instead of {ours.get(i)!r}" for i in differing[:3])
        raise ValueError(
            f"{source}: was trained with another vocabulary than {model}: {len(theirs)} tokens instead of {len(ours)}, "
            f"{len(differing)} of them differ (by number: {examples}); use a policy of this SFT model"
        )
