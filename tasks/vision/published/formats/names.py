"""Matching the class names of files and mirrors with those of prompts: a label is worth what its name says."""

from collections.abc import Sequence


def label_order(found: Sequence[str], names: Sequence[str], keys: Sequence[str], where: str) -> list[int]:
    """Which of `names` each of the `found` classes is; case, spaces and punctuation do not count.

    Args:
        found: as the files or a mirror call the classes, in the order of their labels.
        names: as prompts call them, in the order of the labels wanted.
        keys: other words for the same classes, in the same order, or empty.
        where: for errors.

    Raises:
        ValueError: a class is none of them, or two are the same one.
    """
    plain = [_plain(name) for name in found]
    for known in (keys, names):
        if plain == [_plain(name) for name in known]:  # also right where two classes have one name, as in ImageNet
            return list(range(len(names)))
    table = {_plain(name): label for known in (names, keys) for label, name in enumerate(known)}
    if strangers := [name for name, key in zip(found, plain, strict=True) if key not in table]:
        raise ValueError(
            f"{where}: the classes {strangers[:5]} are none of {[*names[:3], '...']}: is it another set, or one in "
            "another wording? If only the wording differs and the order is the same, set the option classes_by: order"
        )
    order = [table[key] for key in plain]
    if len(set(order)) < len(order):
        raise ValueError(f"{where}: several of its classes have one name, so that its labels cannot be told apart")
    return order


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
