"""Find the state dict in what a training program saved: it wraps it, with optimizer states and averaged copies."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from tasks.name_matching import is_copy

#: Keys under which training programs save the trained weights, the most usual first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "student")
_NO_MODEL = re.compile(r"optim|sched|scaler|callback|loop|rng|param_groups", re.IGNORECASE)
#: Wrappers in wrappers, at most.
_DEPTH = 4


def find_state(content: object) -> tuple[object, str]:
    """Return the state dict of the trained weights, and what else the file holds, "" if nothing.

    Trained weights are preferred to their averages. What is not recognised is returned as it is.

    Raises:
        ValueError: if there are several models, none of which has a known name.
    """
    note = ""
    for _ in range(_DEPTH):
        models = _models(content)
        if not models:
            break
        key = _choice(list(models))
        if others := [name for name in models if name != key]:
            note = f"read {key!r}; the file also holds {', '.join(map(repr, others))}"
            if copies := [name for name in others if is_copy(name)]:
                note += f" ({', '.join(map(repr, copies))}: an average of the weights, such as EMA)"
        elif is_copy(key):
            note = f"read {key!r}, an average of the weights such as EMA: the file holds no others"
        content = models[key]
    return content, note


def _models(content: object) -> dict[str, Mapping[object, object]]:
    """Return the models in `content` by key; none if it is a state dict itself."""
    if not isinstance(content, Mapping):
        return {}
    found = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Mapping) and _holds(k, v)}
    if any(isinstance(v, Tensor) and v.ndim for v in content.values()) and not found.keys() & set(WRAPPERS):
        return {}
    return found


def _holds(key: object, value: object, depth: int = 0) -> bool:
    """Return whether there are weights in a mapping, or in mappings in it."""
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex() or value.ndim > 1
    if not isinstance(value, Mapping) or depth == _DEPTH or _NO_MODEL.search(str(key)) or "param_groups" in value:
        return False
    return any(_holds(k, v, depth + 1) for k, v in value.items())


def _choice(names: Sequence[str]) -> str:
    trained = [name for name in names if not is_copy(name)] or names
    known = [name for name in WRAPPERS if name in trained]
    if not known and len(trained) > 1:
        raise ValueError(
            f"holds several models: {', '.join(map(repr, trained))}; load the file and save the state dict of one, for "
            f"example torch.load(FILE)[{trained[0]!r}]"
        )
    return known[0] if known else trained[0]
