"""Matching of the class names of files and mirrors with the names in prompts."""

from collections.abc import Sequence


def label_order(found: Sequence[str], names: Sequence[str], keys: Sequence[str], where: str) -> list[int]:
    """Return the index in `names` of each of the `found` classes; case, spaces and punctuation are ignored.

    Args:
        found: the files' or the mirror's names of the classes, in the order of their labels.
        names: the names in prompts, in the order of the task's labels.
        keys: other names of the same classes in the same order, or empty.
        where: for errors.

    Raises:
        ValueError: if a class is none of them, or two are the same.
    """
    plain = [_plain(name) for name in found]
    for known in (keys, names):
        if plain == [_plain(name) for name in known]:  # also if two classes share a name, as in ImageNet
            return list(range(len(names)))
    table = {_plain(name): label for known in (names, keys) for label, name in enumerate(known)}
    if strangers := [name for name, key in zip(found, plain, strict=True) if key not in table]:
        raise ValueError(
            f"{where}: the classes {strangers[:5]} are none of {[*names[:3], '...']}: is it another set, or does only "
            "the wording differ? If the order is the same, set the option classes_by: order"
        )
    order = [table[key] for key in plain]
    if len(set(order)) < len(order):
        raise ValueError(f"{where}: several of its classes have the same name, so labels would be ambiguous")
    return order


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
