"""The libraries' own bars, prints and notices are kept off the display."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of transformers, datasets and trl is printed in the block but errors."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    for name in ("trl", "accelerate", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        for kind in (FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield
