"""Mutations of bytes, of text and of parsed trees; each is a function of random numbers, and so of a seed."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

#: Strings with a meaning in YAML, markup, paths or templates; long ones, and ones that look like numbers.
STRINGS: tuple[str, ...] = (
    "", " ", "\t", "null", "~", "yes", "off", "true", "[", "]", "[/]", "[/red]", "[bold", "[link=x]", "{", "{}", "{0}",
    "{x!r:>{w}}", "%s", "${HOME}", "$(id)", "..", "../..", "/", "/dev/zero", "/dev/null", "~root", "file:///etc/passwd",
    "http://", "s3://", "hf:", "hf:a/b/c/d@", "embedded/", "embedded/../x", "auto", "each_expert", "1 - alpha", "...",
    "mean", "mean(", "mean * 1e999", "-" * 3000 + "1", "(" * 3000 + "1" + ")" * 3000, "1" + " + 1" * 3000, "mean / 0",
    "9" * 400, "9" * 5000, "1e400", "-1e400", "nan", ".nan", "inf", "-.inf", "1_000", "0x10", "0b1", "012", "1:30",
    "2001-01-01", "1e-3", "1,5", "½", "٣", "é", "e\u0301", "\u202eabc", "\u200b", "\ufeff", "💥", "a\x00b",
    "\x1b[31mred", "a\nb", "a\r\nb", "a" * 300, "a" * 20000, "a.b.c", "<b>", "&a", "*a", "!!python/name:os.system",
    "- x", "a: b", "# x", "'", '"', "\\", "\\d+(", "(?P<", "(a+)+$", "^", "locl", "Adam", "TIES", "sum ", " sum", "SUM",
    "path:fn", ":", "os:system", "a/b", "con", ".hidden", "-x", "--help", "val", "test", "base", "pre-trained",
    "fine-tuned",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 100, 10**6, 10**9, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400),
    0.0, -0.0, 0.5, -0.5, 1.5, 1e-9, 5e-324, 1e-300, 1e15, 1e16, 1e300, -1e300, 1.7976931348623157e308,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def value(dice: random.Random, depth: int = 0) -> Any:
    """Return a value of any type: None, a truth value, a number, a string, a list or a mapping."""
    kind = dice.random()
    if kind < 0.12:
        return dice.choice((None, True, False))
    if kind < 0.45:
        return dice.choice(NUMBERS)
    if kind < 0.8 or depth > 2:
        return dice.choice(STRINGS)
    if kind < 0.9:
        return [value(dice, depth + 1) for _ in range(dice.choice((0, 1, 1, 2, 3, 30)))]
    return {key(dice): value(dice, depth + 1) for _ in range(dice.choice((0, 1, 1, 2, 5)))}


def key(dice: random.Random) -> Any:
    """Return the key of a mapping: mostly a string."""
    return dice.choice(NUMBERS + (None, True)) if dice.random() < 0.2 else dice.choice(STRINGS)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key or index) of every value below the root."""
    stack = [tree]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, child in items:
            yield node, name
            stack.append(child)


def mutate_tree(tree: Any, dice: random.Random, donors: list[Any] | None = None) -> Any:
    """Return a copy of a tree of mappings and lists after one to four changes; `donors` lend their subtrees."""
    root = [copy.deepcopy(tree)]
    for _ in range(dice.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, 4))):
        spots = [(node, name) for node, name in places(root) if node is not root] or [(root, 0)]
        node, name = dice.choice(spots)
        dice.choice(_CHANGES)(node, name, dice, donors or [tree])
    return root[0]


def _replace(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    node[name] = value(dice)


def _delete(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    del node[name]


def _rename(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    """Give a key another name, often a typo, in its old place; swap two items of a list."""
    if isinstance(node, list):
        other = dice.randrange(len(node))
        node[name], node[other] = node[other], node[name]
        return
    new = typo(str(name), dice) if dice.random() < 0.6 else key(dice)
    items = [(new if k is name else k, v) for k, v in node.items()]
    node.clear()
    node.update(items)


def _duplicate(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    if isinstance(node, list):
        node += [copy.deepcopy(node[name]) for _ in range(dice.choice((1, 2, 50)))]
    else:
        node[typo(str(name), dice) if dice.random() < 0.5 else key(dice)] = copy.deepcopy(node[name])


def _wrap(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    wide = dice.random() < 0.5
    for _ in range(dice.choice((1, 1, 2, 3, 30, 150))):
        node[name] = [node[name]] if wide else {dice.choice(("a", "grid", "range", "of")): node[name]}


def _scale(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    """Change a number by a factor; turn any other value, and an integer beyond floats, into text."""
    old = node[name]
    if isinstance(old, int | float) and not isinstance(old, bool) and not abs(old) > 1e300:
        factors: tuple[Callable[[Any], Any], ...] = (
            lambda x: -x, lambda x: x * 10**6, lambda x: float(x), lambda x: str(x), lambda x: x + 0.5, lambda x: x - 1,
            lambda x: 10**400 + int(x) if abs(x) < 1e300 else x, lambda x: bool(x),
        )  # fmt: skip
        node[name] = dice.choice(factors)(old)
    else:
        node[name] = dice.choice((str, repr, lambda x: [x], lambda x: f"{x} "))(old)


def _graft(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    """Put a subtree of a donor here, or add one under its own name."""
    spots = list(places(dice.choice(donors)))
    if not spots:
        return
    there, what = dice.choice(spots)
    if isinstance(node, dict) and isinstance(there, dict) and dice.random() < 0.5:
        node[what] = copy.deepcopy(there[what])
    else:
        node[name] = copy.deepcopy(there[what])


def _empty(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    old = node[name]
    node[name] = type(old)() if isinstance(old, dict | list | str) else None


def _add(node: Any, name: Any, dice: random.Random, donors: list[Any]) -> None:
    if isinstance(node, list):
        node.insert(dice.randrange(len(node) + 1), value(dice))
    else:
        node[key(dice)] = value(dice)


_CHANGES = (
    _replace,
    _replace,
    _replace,
    _delete,
    _rename,
    _rename,
    _duplicate,
    _wrap,
    _scale,
    _scale,
    _graft,
    _empty,
    _add,
)


def typo(word: str, dice: random.Random) -> str:
    """Return a word with one letter changed, dropped, doubled, or in another case; or with a character of markup."""
    if not word:
        return "x"
    at = dice.randrange(len(word))
    changed = dice.choice(("", word[at] * 2, word[at].swapcase(), dice.choice("abcxyz_-. [](){}#:*&!/\\"), "é"))
    return word[:at] + changed + word[at + 1 :]


def mutate_text(text: str, dice: random.Random) -> bytes:
    """Return a text after one to four changes of its lines and characters; at times it is no UTF-8 any more."""
    data = text.encode(errors="surrogatepass")
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
        data = dice.choice(_TEXT_CHANGES)(data, dice)
    return data


def _line(change: Callable[[list[bytes], int, random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    def changed(data: bytes, dice: random.Random) -> bytes:
        lines = data.split(b"\n")
        change(lines, dice.randrange(len(lines)), dice)
        return b"\n".join(lines)

    return changed


def _new_value(lines: list[bytes], at: int, dice: random.Random) -> None:
    name, colon, _ = lines[at].partition(b":")
    lines[at] = name + (colon or b":") + b" " + odd_bytes(dice)


def _indent(lines: list[bytes], at: int, dice: random.Random) -> None:
    lines[at] = dice.choice(
        (b"  " + lines[at], lines[at][2:], b"\t" + lines[at], lines[at].lstrip(), b"- " + lines[at])
    )


def _swap(lines: list[bytes], at: int, dice: random.Random) -> None:
    other = dice.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + odd_bytes(dice) + data[at:]


def odd_bytes(dice: random.Random) -> bytes:
    """Return an odd value as it may stand in a text."""
    kind = dice.random()
    if kind < 0.5:
        return dice.choice(STRINGS).encode()
    if kind < 0.75:
        return str(dice.choice(NUMBERS)).encode() if dice.random() < 0.9 else b"9" * 5000
    if kind < 0.85:
        return dice.choice((b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"\xc3", b"\x1b]0;x\x07", b"\xef\xbb\xbf"))
    count = dice.choice((3, 60, 400, 3000))
    return dice.choice((b"[", b"{", b"- ", b"? ", b"a: {", b"&a [", b"-", b"!", b"{a: ")) * count


_TEXT_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _line(lambda lines, at, dice: lines.pop(at) and None),
    _line(lambda lines, at, dice: lines.insert(at, lines[at])),
    _line(_new_value),
    _line(_new_value),
    _line(_new_value),
    _line(_indent),
    _line(_swap),
    _insert,
    lambda data, dice: mutate_bytes(data, dice),
)


def mutate_bytes(data: bytes, dice: random.Random, most: int = 3) -> bytes:
    """Return bytes after one to `most` flips, cuts, insertions, deletions, or copies of a part."""
    out = bytearray(data)
    for _ in range(dice.randint(1, most)):
        at = _place(len(out), dice)
        kind = dice.random()
        if not out or kind < 0.12:
            out[at:at] = dice.randbytes(dice.choice((1, 1, 2, 8, 300)))
        elif kind < 0.6:
            out[at] ^= 1 << dice.randrange(8)
        elif kind < 0.72:
            out[at] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif kind < 0.8:
            del out[at : at + dice.choice((1, 1, 2, 8, 300))]
        elif kind < 0.9:
            part = out[at : at + dice.choice((1, 4, 8, 64))]
            there = _place(len(out), dice)
            out[there : there + len(part)] = part
        else:
            del out[at:]
    return bytes(out)


def _place(size: int, dice: random.Random) -> int:
    """Return a place anywhere, or close to either end, where headers and directories are."""
    near = min(size, dice.choice((64, 512, size or 1)))
    at = dice.randrange(near + 1) if near else 0
    return min(max(size - 1, 0), at if dice.random() < 0.6 else size - at)


def flip(data: bytes, dice: random.Random) -> bytes:
    """Return bytes with one bit changed."""
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
