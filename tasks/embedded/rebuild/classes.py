"""Class tables: characters and their names, and the classes of emoji, icons and clip art."""


def words(text: str) -> list[str]:
    """Split a text into words, to keep long tables compact."""
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
"""Icon class -> first words of its icons' names."""

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
