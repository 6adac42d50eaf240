"""Mutations of file formats: JSON, the header of safetensors, archives, pickles, chunks of PNG."""

import io
import json
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from fuzz.mutations import NUMBERS, STRINGS, mutate_bytes, mutate_text, mutate_tree, value

Mutation = Callable[[bytes, random.Random], bytes]

_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "U64",
    "C64",
    "F4",
    "",
)
_ELEMENTS = (b"cbuiltins\neval\n", b"cos\nsystem\n", b"ctorch\nHalfStorage\n", b"ctorch\nQUInt8Storage\n", b"c\n\n")


def in_json(data: bytes, dice: random.Random) -> bytes:
    """Change a JSON text, or the values in it; at times nest it deeply."""
    kind = dice.random()
    if kind < 0.3:
        return mutate_text(data.decode(), dice)
    if kind < 0.36:
        count = dice.choice((100, 2000, 60_000))
        deep = dice.choice((b"[" * count + b"]" * count, b'{"a":' * count + b"1" + b"}" * count))
        return deep if dice.random() < 0.5 else b'{"metadata": {}, "weight_map": ' + deep + b"}"
    return _dumped(mutate_tree(json.loads(data), dice))


def _dumped(tree: Any) -> bytes:
    return json.dumps(_text_keys(tree), ensure_ascii=False).encode(errors="surrogatepass")


def _text_keys(tree: Any) -> Any:
    """Return a tree whose keys JSON has: numbers of 5,000 digits too, which Python does not print."""
    if isinstance(tree, dict):
        return {k if isinstance(k, str) else f"{k!s:.300}": _text_keys(v) for k, v in tree.items()}
    return [_text_keys(v) for v in tree] if isinstance(tree, list) else tree


def in_safetensors(data: bytes, dice: random.Random) -> bytes:
    """Change the header of a safetensors file: a type, a shape, an offset, a name, its length."""
    (length,) = struct.unpack_from("<Q", data)
    body = data[8 + length :]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    kind = dice.random()
    if kind < 0.1:
        return struct.pack("<Q", dice.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))) + data[8:]
    if kind < 0.25:
        header = mutate_tree(header, dice)
    else:
        names = [name for name in header if name != "__metadata__"]
        for _ in range(dice.randint(1, 2)):
            _change_entry(header, dice.choice(names), dice)
    text = _dumped(header)
    return struct.pack("<Q", len(text)) + text + body


def _change_entry(header: dict[str, Any], name: str, dice: random.Random) -> None:
    entry, field = header.get(name), dice.choice(("dtype", "shape", "data_offsets", "name", "copy", "shape"))
    if not isinstance(entry, dict):
        return
    if field == "dtype":
        entry[field] = dice.choice(_DTYPES)
    elif field == "name":
        header[dice.choice(STRINGS)] = header.pop(name)
    elif field == "copy":
        header[dice.choice((f"{name}.copy", "module." + name, dice.choice(STRINGS)))] = dict(entry)
    else:
        numbers = list(entry[field])
        at = dice.randrange(len(numbers) + 1)
        change = dice.choice((*NUMBERS[:22], value(dice), 4096))
        if at < len(numbers) and dice.random() < 0.8:
            numbers[at] = change
        else:
            numbers.insert(at, change)
        entry[field] = numbers if dice.random() < 0.9 else numbers[::-1]


def in_zip(data: bytes, dice: random.Random) -> bytes:
    """Rewrite an archive of torch with a changed pickle, or with changed, lost, doubled or expanding entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = dice.choice(list(entries))
    pickle = next(n for n in entries if n.endswith("data.pkl"))
    kind = dice.random()
    if kind < 0.55:
        entries[pickle] = in_pickle(entries[pickle], dice)
    elif kind < 0.65:
        entries[name] = mutate_bytes(entries[name], dice)
    elif kind < 0.75:
        del entries[name]
    elif kind < 0.85:
        entries[dice.choice((name.upper(), "../" + name, name.split("/")[-1], "x/" + name))] = entries.pop(name)
    elif kind < 0.93:
        entries[name] = entries[name][: dice.randrange(len(entries[name]) + 1)]
    else:
        entries[name] = bytes(dice.choice((1 << 20, 40 << 20)))
    packing = zipfile.ZIP_DEFLATED if dice.random() < 0.2 or kind >= 0.93 else zipfile.ZIP_STORED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return out.getvalue()


def in_pickle(data: bytes, dice: random.Random) -> bytes:
    """Change the program of a pickle: its numbers, strings, names of classes, or the order of its steps."""
    steps = _steps(data)
    if not steps:
        return mutate_bytes(data, dice)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(steps))
        name, code = steps[at]
        if number := _number(name, dice):
            steps[at] = (name, number)
            continue
        kind = dice.random()
        if kind < 0.15:
            steps[at] = (name, _text(dice))
        elif kind < 0.3:
            steps[at] = (name, dice.choice(_ELEMENTS))
        elif kind < 0.5 and len(steps) > 2:
            del steps[at]
        elif kind < 0.65:
            steps.insert(at, (name, code))
        elif kind < 0.8:
            other = dice.randrange(len(steps))
            steps[at], steps[other] = steps[other], steps[at]
        elif kind < 0.9:
            steps[at] = (
                "",
                dice.choice((b"N", b"\x88", b")", b"]", b"}", b"0", b"2", b"\x85", b"R", b"Q", b".", b"b")),
            )
        else:
            steps[at] = (name, mutate_bytes(code, dice))
    return b"".join(code for _, code in steps)


def _steps(data: bytes) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of every step of the first pickle, and the rest as one step."""
    found = []
    try:
        for op, _, at in pickletools.genops(data):
            found.append((op.name, int(at or 0)))
    except ValueError:
        return []
    ends = [at for _, at in found[1:]]
    last = found[-1][1] + 1
    return [(n, data[a:b]) for (n, a), b in zip(found, [*ends, last], strict=True)] + [("", data[last:])]


def _number(name: str, dice: random.Random) -> bytes:
    """Return the bytes of a number that may stand for one of this step; none for other steps, and at times."""
    if name not in ("BININT", "BININT1", "BININT2", "LONG1") or dice.random() < 0.3:
        return b""
    pick = dice.choice((0, 1, 2, 255, 65535, 2**31 - 1, -1, -(2**31), 10**6, 2**40, 2**62))
    return b"J" + struct.pack("<i", pick) if -(2**31) <= pick < 2**31 else b"\x8a\x08" + struct.pack("<q", pick)


def _text(dice: random.Random) -> bytes:
    data = dice.choice((*STRINGS, "cuda:0", "meta", "mps", "visual.proj", "0", "1")).encode()
    return b"X" + struct.pack("<I", len(data)) + data


def in_png(data: bytes, dice: random.Random) -> bytes:
    """Change the chunks of a PNG, with right checksums: size, depth and type of colours, order, repeated chunks."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    kind = dice.random()
    if kind < 0.5:
        header = bytearray(chunks[0][1])
        place = dice.choice((0, 0, 4, 4, 8, 9, 10, 11, 12))
        new = (
            struct.pack(">I", dice.choice((0, 1, 100, 40_000, 2**31 - 1))) if place < 8 else bytes([dice.randrange(17)])
        )
        header[place : place + len(new)] = new
        chunks[0] = (chunks[0][0], bytes(header))
    elif kind < 0.7:
        chunks.insert(dice.randrange(len(chunks) + 1), dice.choice(chunks))
    elif kind < 0.8:
        del chunks[dice.randrange(len(chunks))]
    else:
        spot = dice.randrange(len(chunks))
        chunks[spot] = (dice.choice((chunks[spot][0], b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"gAMA", b"acTL", b"zTXt")),
                        mutate_bytes(chunks[spot][1], dice))  # fmt: skip
    parts = (
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    )
    return data[:8] + b"".join(parts)
