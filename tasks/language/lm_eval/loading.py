"""Load a task of lm-eval by its name: `lm_eval/NAME`."""

from collections.abc import Callable
from importlib.util import find_spec

from tasks.base import Backbone, Task, TaskRequest
from tasks.extras import install_hint
from tasks.language.lm_eval.options import Options

_FAMILIES = ("causal", "seq2seq")


def load(request: TaskRequest, backbone: Backbone, progress: Callable[[int, int], None] | None = None) -> Task:
    """Load a task of lm-eval; its data set is read, its prompts are built when it is first scored.

    Raises:
        ValueError: if lm-eval is not installed, has no task of this name or cannot load it, its data set is not at
            hand, an option is wrong, or the model is no language model.
    """
    if backbone.family not in _FAMILIES:
        families = " or ".join(_FAMILIES)
        raise ValueError(f"{request.source}: needs a backbone of family {families}, got {backbone.family}")
    options = _options(request)
    from tasks.language.lm_eval.assembly import assemble  # lm-eval takes seconds to import

    return assemble(request, options, backbone)


def check_data(request: TaskRequest) -> None:
    """Read the data set of a task, before any model is read.

    Raises:
        ValueError: as `load`, as far as no model is needed to know it.
    """
    options = _options(request)
    from tasks.language.lm_eval.assembly import task_of

    task_of(request, options)


def _options(request: TaskRequest) -> Options:
    if find_spec("lm_eval") is None:
        raise ValueError(f"{request.source}: lm-eval is not installed: {install_hint('lm-eval')}")
    return Options.of(request)
