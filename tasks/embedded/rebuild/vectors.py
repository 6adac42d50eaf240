"""Renders emoji and icons from the SVG bodies of the npm package ``@iconify/json``."""

import argparse
import io
import json
import logging
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

from .catalogue import EMOJI_SETS, EMOJI_SHIFTED, ICON_SETS, ICON_SHIFTED
from .classes import EMOJI_GROUPS, ICON_WORDS, words
from .rasters import fit
from .records import SIZE, Item, Pixels, save_items

STYLE_WORDS = frozenset(
    words(
        "outline outlined filled fill line linear bold duotone broken thin light solid regular sharp rounded round "
        "twotone two tone remix flat duo alt o icon s l t variant simple stroke print pop curved loop color"
    )
)
VARIANTS_PER_KEY = 2
UNNAMED_PER_SET = 800
_SKIN = re.compile(r"skin|(^|-)(dark|light|medium)(-|$)")
_log = logging.getLogger(__name__)


def load_set(root: Path, name: str) -> dict[str, Any]:
    """Read one icon set in iconify's JSON format."""
    icons: dict[str, Any] = json.loads((root / "json" / f"{name}.json").read_text())
    return icons


def rasterise(icons: dict[str, Any], name: str, ink: str = "#222222", paper: str = "#ffffff") -> Pixels | None:
    """Render an icon at 32 x 32, ``ink`` in place of ``currentColor``; ``None`` if nothing is visible."""
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(side, icons.get(side, default))
        for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{paper}"/>'
        f"{icon['body'].replace('currentColor', ink)}</svg>"
    )
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    except ValueError:
        return None
    pixels = fit(Image.open(io.BytesIO(bytes(data))))
    return pixels if pixels.std() >= 8 else None


def emoji(root: Path, emojibase: Path) -> list[Item]:
    """Render emoji without skin tones; class, name and tags are emojibase's, the key is the emoji's name."""
    entries = json.loads((emojibase / "data.json").read_text())
    subgroups = {g["order"]: g["key"] for g in json.loads((emojibase / "messages.json").read_text())["subgroups"]}
    label_of = {group: label for label, groups in EMOJI_GROUPS.items() for group in groups.split()}
    known = {}
    for entry in entries:
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"['’]", "", entry["label"].lower())).strip("-")
        label = label_of.get(subgroups.get(entry.get("subgroup"), ""), "")
        known[slug] = (label, entry["label"].lower(), tuple(entry.get("tags", [])))
    items = []
    for set_name in (*EMOJI_SETS, *EMOJI_SHIFTED):
        icons = load_set(root, set_name)
        pool = EMOJI_SHIFTED.get(set_name, "emoji")
        for name in icons["icons"]:
            if name not in known or _SKIN.search(name):
                continue
            pixels = rasterise(icons, name)
            if pixels is not None:
                label, title, tags = known[name]
                items.append(Item(pool, pixels, label, title, tags, name, set_name))
    return items


def stem_words(name: str) -> list[str]:
    """Return the words of an icon's name without numbers and style words."""
    return [word for word in name.split("-") if word and not word.isdigit() and word not in STYLE_WORDS]


def _ink_and_paper(rng: random.Random) -> tuple[str, str]:
    """Choose a dark ink on white, or in three of ten cases white on a dark colour."""
    dark = "#{:02x}{:02x}{:02x}".format(*(rng.randrange(0, 150) for _ in range(3)))
    return ("#ffffff", dark) if rng.random() < 0.3 else (dark, "#ffffff")


def icons_of(root: Path, set_name: str, shifted: bool) -> list[Item]:
    """Render one set: every icon whose first word names a class, and a sample of the others for pre-training."""
    label_of = {word: label for label, first in ICON_WORDS.items() for word in words(first)}
    rng = random.Random(set_name)
    icons = load_set(root, set_name)
    names = sorted(icons["icons"])
    rng.shuffle(names)
    variants: Counter[str] = Counter()
    unnamed = 0
    items = []
    for name in names:
        parts = stem_words(name)
        key = "-".join(parts)
        label = label_of.get(parts[0], "") if parts else ""
        if not parts or variants[key] >= VARIANTS_PER_KEY:
            continue
        if not label and (shifted or unnamed >= UNNAMED_PER_SET):
            continue
        pixels = rasterise(icons, name, *(("#222222", "#ffffff") if shifted else _ink_and_paper(rng)))
        if pixels is None:
            continue
        variants[key] += 1
        unnamed += not label
        items.append(Item("icons_color" if shifted else "icons", pixels, label, " ".join(parts), (), key, set_name))
    return items


def main() -> None:
    """Write ``pools/emoji.parquet`` and ``pools/icons.parquet`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    root = work / "src" / "package"
    drawn = emoji(root, work / "src" / "emojibase" / "package" / "en")
    save_items(work / "pools" / "emoji.parquet", drawn)
    _log.info("emoji: %d images", len(drawn))
    pictograms = [item for name in ICON_SETS for item in icons_of(root, name, shifted=False)]
    pictograms += [item for name in ICON_SHIFTED for item in icons_of(root, name, shifted=True)]
    save_items(work / "pools" / "icons.parquet", pictograms)
    _log.info("icons: %d images, %d with a class", len(pictograms), sum(bool(i.label) for i in pictograms))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
