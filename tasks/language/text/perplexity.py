"""Load a task of documents: bits per byte of their texts."""

from collections.abc import Mapping, Sequence

from tasks.base import TaskRequest
from tasks.files.cache import digest
from tasks.language.text.backbone import LanguageBackbone, has_encoder
from tasks.language.text.documents import Document, documents_of
from tasks.language.text.encoding import Tokens, start_token
from tasks.language.text.options import Options
from tasks.language.text.rolling import DocumentBatch, Windows
from tasks.language.text.task import TextTask, by_length
from tasks.metrics import BITS_PER_BYTE

#: Part of every fingerprint: raised when a sample would be scored in another way.
_FORMAT = "1"
#: Windows a forward pass: each holds the logits of a whole context.
_CPU_BATCH, _ACCELERATOR_BATCH = 4, 8
#: Of models without a bound of their own, as in lm-evaluation-harness.
_WINDOW = 2048
_VAL_FRACTION = 0.2
_OPTIONS = ("metric", "batch_size", "text", "window", "stride", "val_fraction")


def load_documents(request: TaskRequest, model: LanguageBackbone) -> TextTask:
    """Load the documents of a file or a folder.

    Raises:
        ValueError: if the model is no causal one, or an option or a row is wrong; the field, or the file and the row,
            is named.
    """
    options = Options(request, _OPTIONS)
    if has_encoder(model):
        raise ValueError(
            f"{options.where}.metric: {BITS_PER_BYTE} needs a backbone of family causal, got {model.family}: an "
            "encoder-decoder gives no probability of a text by itself"
        )
    windows = _windows(options, model)
    rows = options.count("batch_size", _CPU_BATCH if model.device.type == "cpu" else _ACCELERATOR_BATCH)
    assert rows is not None
    documents = documents_of(
        request.source,
        options.get("text", str, "text"),
        options.fraction("val_fraction", _VAL_FRACTION),
        request.limits,
        request.test_only,
    )
    batches, sizes = {}, {}
    for split, some in documents.items():
        cut = by_length(*_encoded(some, model), rows)
        sizes[split] = [size for batch in cut for size, _ in batch]
        mean = sum(sizes[split]) / max(1, len(some))
        batches[split] = [DocumentBatch([tokens for _, tokens in batch], windows, rows, mean) for batch in cut]
    return TextTask(request.name, batches, _fingerprint(documents, windows, rows), BITS_PER_BYTE, sizes)


def _windows(options: Options, model: LanguageBackbone) -> Windows:
    longest = options.count("window", model.context or _WINDOW)
    assert longest is not None
    if model.context is not None and longest > model.context:
        raise ValueError(f"{options.where}.window: must be at most the model's context, {model.context}, got {longest}")
    stride = options.count("stride", longest)
    assert stride is not None
    if stride > longest:
        raise ValueError(f"{options.where}.stride: must be at most the window, {longest} tokens, got {stride}")
    return Windows(longest, stride)


def _encoded(documents: Sequence[Document], model: LanguageBackbone) -> tuple[list[tuple[int, Tokens]], list[int]]:
    """Return (bytes, tokens) of each document, and the numbers of its tokens.

    Raises:
        ValueError: if a document has no tokens.
    """
    first, found = start_token(model.tokenizer), []
    for document in documents:
        tokens = tuple(model.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"])
        if not tokens:
            raise ValueError(f"{document.where}: its text has no tokens; leave it out")
        found.append((document.size, first + tokens))
    return found, [len(tokens) for _, tokens in found]


def _fingerprint(documents: Mapping[str, Sequence[Document]], windows: Windows, rows: int) -> str:
    how = repr((_FORMAT, BITS_PER_BYTE, windows.longest, windows.stride, rows))
    texts = (part for split, some in sorted(documents.items()) for part in (split, *(d.text for d in some)))
    return digest([how, *texts])[:16]
