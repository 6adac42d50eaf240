"""Language models and tokenizers by source: a folder, a hub repository, or a model built into the cache."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from shutil import copymode
from typing import Any, TypeVar, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tasks.embedded import BUILT_HERE, model_path, not_built
from tasks.files.cache import built, digest
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.models import nearby
from tasks.files.sources import HubName, Source
from tasks.registry import near

#: Configurations, weights, and the files of all kinds of tokenizers; never code.
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
#: Fetched if a repository has no other weights, and read with weights_only=True.
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
CONFIG = "config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
#: Vocabularies of older files, from which transformers makes a tokenizer if there is no tokenizer.json.
_VOCABULARIES = ("spiece.model", "sentencepiece.bpe.model", "vocab.txt")
_MORE_OF_TOKENIZERS = ("merges.txt", "special_tokens_map.json", "added_tokens.json")

_T = TypeVar("_T")


def model_folder(source: Source | str) -> Path:
    """Return the folder that `source` names; a repository that is not in the hub's cache is fetched first.

    Args:
        source: a folder; its URL; `hf:OWNER/REPO[@REVISION]`; or `embedded/NAME`, which `make bases` or `make
            rewarded-soups` builds
            (`./embedded/NAME` is a path).

    Raises:
        ValueError: if the folder does not exist, it is not built yet, or the hub refuses it or is out of reach.
    """
    source = Source.parse(source) if isinstance(source, str) else source
    if source.kind == "hub":
        return _from_hub(source)
    if source.kind == "embedded":
        return _built(source)
    folder = Path(nearby(source.text)).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(f"{source.text}: must be a folder, got a file")
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source.text) and not folder.parent.is_dir():
        raise ValueError(f"{source.text}: no such folder; a repository of the hub is written hf:{source.text}")
    others = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    raise ValueError(f"{source.text}: no such folder; {near(folder.name, others)}")


def _built(source: Source) -> Path:
    if folder := model_path(source.name) or built(source.name):
        return folder
    if source.name not in BUILT_HERE:
        raise ValueError(f"{source.text}: no such embedded model or prompts; {near(source.name, BUILT_HERE)}")
    others = [name for name in BUILT_HERE if built(name)]
    raise ValueError(f"{source.text}: {not_built(source.name)}; built: {', '.join(others) or 'none'}")


def _from_hub(source: Source) -> Path:
    hub = HubName.of(source, files=False)
    silent = hub_silence() is not None

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(hub.repo, revision=hub.revision, allow_patterns=list(patterns), local_files_only=silent)
        )

    try:
        folder = fetch(*_FILES)
        return folder if any(folder.glob("*.safetensors")) else fetch(*_FILES, *_PICKLES)
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{source.text}: not in the local cache, and {out_of_reach()}") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{source.text}: the hub refuses it: {str(error).strip()}") from error


def inputs_fingerprint(source: str) -> str:
    """Return the content hash of the configuration and tokenizer in a model's folder, which the weights lack.

    Raises:
        ValueError: see `model_folder`.
    """
    folder = model_folder(source)
    whole = any((folder / name).is_file() for name in _TOKENIZER_FILES[:3])
    names = sorted({CONFIG, *_TOKENIZER_FILES, *_MORE_OF_TOKENIZERS, *(() if whole else _VOCABULARIES)})
    return digest(part for name in names if (path := folder / name).is_file() for part in (name, path.read_bytes()))


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer's files."""
    return any((folder / name).is_file() for name in (*_TOKENIZER_FILES, *_VOCABULARIES))


def read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read any tokenizer as it was saved, without running its code; use `load_tokenizer` for generation.

    Raises:
        ValueError: if the folder has none, or it cannot be read.
    """
    return read_tokenizer_in(model_folder(source), source)


def read_tokenizer_in(folder: Path, source: str) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder, as `read_tokenizer`; errors name `source`."""
    if not has_tokenizer(folder):
        names = ", ".join((*_TOKENIZER_FILES, *_VOCABULARIES))
        raise ValueError(
            f"{source}: has no tokenizer: expected one of {names}; copy the tokenizer's files of the model that it was "
            "made from into the folder"
        )
    pieces = [path.name for path in folder.glob("*.model")]
    if pieces and not (folder / "tokenizer.json").is_file() and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            f"tokenizer of {source}: {pieces[0]} is read by the package sentencepiece, which is not installed: pip "
            "install sentencepiece, or save the tokenizer as tokenizer.json where it is installed"
        )
    return read_files(f"tokenizer of {source}", lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a causal language model, padding on the left so that all completions start together.

    Raises:
        ValueError: if there is none, it has no end-of-sequence token, or no other pad token.
    """
    tokenizer = read_tokenizer(source)
    check_completes(tokenizer, source)
    tokenizer.padding_side = "left"
    return tokenizer


def check_rows(tokenizer: PreTrainedTokenizerBase, source: str, model: PreTrainedModel) -> None:
    """Check that a model has an embedding for each token.

    Raises:
        ValueError: if its tokenizer has more tokens.
    """
    table: Any = model.get_input_embeddings()
    if len(tokenizer) > table.num_embeddings:
        raise ValueError(
            f"tokenizer of {source}: has {len(tokenizer)} tokens, but the model {table.num_embeddings}: is it the "
            "model's own? After adding tokens, call resize_token_embeddings, and save both"
        )


def check_end(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Check that a tokenizer has an end-of-sequence token.

    Raises:
        ValueError: if it has none.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer of {source}: has no end-of-sequence token: set one, and save the tokenizer with it"
        )


def check_completes(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Check that completions have an end that padding does not hide.

    Raises:
        ValueError: if the tokenizer has no end-of-sequence token, or no other pad token.
    """
    check_end(tokenizer, source)
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer of {source}: has no pad token: set one, other than the end-of-sequence token, and save the "
            "tokenizer with it"
        )
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ValueError(
            f"tokenizer of {source}: its pad token is its end-of-sequence token {tokenizer.eos_token!r}, so training "
            "could not see where a completion ends: set another, and save the tokenizer with it"
        )


def load_causal(source: str, dtype: torch.dtype) -> PreTrainedModel:
    """Read a causal language model on the CPU, in eval mode, for training.

    Raises:
        ValueError: if the folder does not exist, transformers cannot read the model, or weights are missing.
    """
    folder = model_folder(source)
    check_config(source, folder)
    with without_progress_bars():
        found: Any = read_files(
            source,
            lambda: AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, output_loading_info=True
            ),
        )
    model, report = found
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{source}: {len(missing)} missing tensors ({'; '.join(missing[:3])})")
    return cast(PreTrainedModel, model.eval())


def check_config(source: str, folder: Path) -> None:
    """Check that a model's folder has a config.json.

    Raises:
        ValueError: if it has none.
    """
    if not (folder / CONFIG).is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = "; it holds a LoRA adapter: give the adapter's base model" if adapter else ""
        raise ValueError(f"{source}: has no {CONFIG}{hint}")


def read_files(what: str, read: Callable[[], _T]) -> _T:
    """Return `read()`, and turn its errors into ValueErrors about `what`.

    Raises:
        ValueError: if transformers cannot read the files, or needs code or a package for them.
    """
    try:
        return read()
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise ValueError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnpicklingError):
        return "its .bin holds more than tensors, and code in files is never run: save the weights as safetensors"
    return f"{'its weights are damaged' if isinstance(error, SafetensorError) else 'cannot be read'}: {text:.300}"


def save_model(module: PreTrainedModel, folder: Path) -> None:
    """Write weights and configuration; who may read the one may read the other."""
    with without_progress_bars():
        module.save_pretrained(folder)
    for file in folder.glob("model*.safetensors"):
        copymode(folder / CONFIG, file)  # safetensors makes it readable for its owner only


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars, which count tensors."""
    logging: Any = transformers_logging  # its functions have no types
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
