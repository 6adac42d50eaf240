"""Renders letters, kana, Greek letters and printed digits from the fonts of the step ``fonts``."""

import argparse
import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .classes import CYRILLIC, DIGITS, GREEK, KANA, KATAKANA, LATIN
from .records import SIZE, Item, Pixels, posterise, save_items

MIN_OPACITY, MIN_INK = 0.8, 0.02
"""Glyphs fainter or smaller than this cannot be read at 32 pixels."""

STYLE_WORDS = ("bold", "italic", "light", "mono", "serif", "sans", "condensed", "thin", "black", "gothic", "mincho")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Script:
    """A set of characters to draw; ``glyphs`` maps each class to its characters."""

    pool: str
    coverage: str
    glyphs: dict[str, str]
    fonts_per_design: int
    copies: int
    hand_pool: str | None = None


SCRIPTS = (
    Script("letters", "latin", {c: c + c.lower() for c in LATIN}, 8, 1, "letters_hand"),
    Script("digits_printed", "latin", {d: d for d in DIGITS}, 8, 1),
    Script("kana", "kana", {name: char for char, name in KANA.items()}, 3, 6, "kana_hand"),
    Script("greek", "greek", {name: char for char, name in GREEK.items()}, 8, 2),
    Script("katakana", "katakana", {name: char for char, name in KATAKANA.items()}, 3, 6),
    Script("cyrillic", "cyrillic", {name: char + char.upper() for char, name in CYRILLIC.items()}, 8, 1),
)


def draw(font: ImageFont.FreeTypeFont, char: str, rng: random.Random) -> Pixels | None:
    """Draw one character, turned, scaled, shifted and coloured at random; ``None`` if it is unusable."""
    left, top, right, bottom = font.getbbox(char)
    width, height = int(right - left), int(bottom - top)
    if not (3 <= width <= 300 and 3 <= height <= 300):
        return None
    mask = Image.new("L", (width + 8, height + 8), 0)
    ImageDraw.Draw(mask).text((4 - left, 4 - top), char, fill=255, font=font)
    mask = mask.rotate(rng.uniform(-8, 8), resample=Image.Resampling.BICUBIC, expand=True)
    scale = rng.uniform(20, 29) / max(mask.size)
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    mask = mask.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("L", (SIZE, SIZE), 0)
    margins = SIZE - mask.width, SIZE - mask.height
    corner = [min(max(margin // 2 + rng.randint(-2, 2), 0), margin) for margin in margins]
    canvas.paste(mask, (corner[0], corner[1]))
    alpha = np.asarray(canvas, np.float32)[:, :, None] / 255
    if alpha.max() < MIN_OPACITY or alpha.mean() < MIN_INK:
        return None
    ink, paper = _colours(rng)
    pixels = (alpha * ink + (1 - alpha) * paper).clip(0, 255).astype(np.uint8)
    return posterise(pixels)


def _colours(rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Choose ink and paper: black on white, white on black, or two colours of clearly different brightness."""
    choice = rng.random()
    black, white = np.zeros(3), np.full(3, 255.0)
    if choice < 0.4:
        return black, white
    if choice < 0.75:
        return white, black
    while True:
        ink, paper = (np.array([rng.uniform(0, 255) for _ in range(3)]) for _ in range(2))
        if abs(ink.mean() - paper.mean()) > 80:
            return ink, paper


def render(script: Script, fonts: list[dict[str, Any]], root: Path, rng: random.Random) -> list[Item]:
    """Render all glyphs of one script; handwriting fonts go to the shifted pool if the script has one."""
    fonts = sorted(fonts, key=lambda f: f["path"])
    rng.shuffle(fonts)
    used: dict[str, int] = {}
    items: list[Item] = []
    for entry in fonts:
        if used.get(entry["design"], 0) >= script.fonts_per_design:
            continue
        used[entry["design"]] = used.get(entry["design"], 0) + 1
        font = ImageFont.truetype(root / entry["path"], 52)
        pool = script.hand_pool if entry["hand"] and script.hand_pool else script.pool
        file = Path(entry["path"]).name.lower()
        tags = tuple(word for word in STYLE_WORDS if word in file)
        for label, chars in script.glyphs.items():
            for _ in range(script.copies):
                try:
                    pixels = draw(font, rng.choice(chars), rng)
                except (OSError, ValueError):
                    continue
                if pixels is not None:
                    items.append(Item(pool, pixels, label, label, tags, entry["design"], entry["package"]))
    return items


def main() -> None:
    """Write ``pools/<script>.parquet`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pools", nargs="+", default=[script.pool for script in SCRIPTS])
    args = parser.parse_args()
    work: Path = args.work
    fonts = json.loads((work / "fonts.json").read_text())
    for script in SCRIPTS:
        if script.pool not in args.pools:
            continue
        items = render(script, fonts[script.coverage], work / "src" / "fonts", random.Random(script.pool))
        save_items(work / "pools" / f"{script.pool}.parquet", items)
        _log.info("%s: %d images of %d designs", script.pool, len(items), len({i.key for i in items}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
