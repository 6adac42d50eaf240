"""Finds usable fonts: with a free licence in the package's copyright file, and all characters of the script."""

import argparse
import json
import logging
import re
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError

from .classes import CYRILLIC, DIGITS, GREEK, KANA, KATAKANA, LATIN

COVERAGE = {
    "latin": [ord(c) for c in [*LATIN, *(c.lower() for c in LATIN), *DIGITS]],
    "kana": [ord(c) for c in KANA],
    "greek": [ord(c) for c in GREEK],
    "katakana": [ord(c) for c in KATAKANA],
    "cyrillic": [ord(c) for c in CYRILLIC] + [ord(c.upper()) for c in CYRILLIC],
}
_CLEAN = re.compile(
    r"OFL|SIL|Open Font|Apache|\bMIT\b|BSD|Expat|Vera|public.?domain|^PD$|CC0|CC-BY-[34]|Unlicense|M\+|IPA",
    re.I,
)
_TAINTED = re.compile(r"GPL|CC-BY-SA|CC-BY-NC|EPL|MPL", re.I)
_HAND = re.compile(
    r"hand|script|breip|dancing|kristi|leckerli|lobster|typoscript|ecolier|humor|kaushan|tomson|havana|comic"
    r"|aoyagi|kouzan|kiloji|setofont|fonts-yoz|klee|soseki|mouhitsu|gazis|yusei|kanjistroke|chancery|apropal"
    r"|bajaderka|greatvibes|domestic",
    re.I,
)
_NOT_TEXT = re.compile(
    r"symbol|dingbat|ornament|math|icons|emoji|music|ocr|barcode|initial|swash|numeral|esint|msam|msbm|wasy|rsfs"
    r"|stmary|cmex|cmsy|d050|wingding|smallcap|-sc\b|unicase|braille|klingon|futhark|becausewe|cryptogram|morse",
    re.I,
)
_SAME_DESIGN = {
    r"yozvox": "yozvox",
    r"ipa(ex)?font|takao": "ipa",
    r"mplus|umeplus|vlgothic|migmix|ricty": "mplus",
    r"aoyagi|kouzan": "kouzan",
    r"bizud": "bizud",
    r"motoya|mmcedar": "motoya",
    r"liberation|croscore": "liberation",
    r"dejavu|hack|arkpandora": "dejavu",
    r"noto-cjk": "noto-cjk",
    r"noto|droid|open-sans|wqy-microhei": "noto",
    r"gentium": "gentium",
    r"andika": "andika",
    r"charis": "charis",
    r"doulos": "doulos",
    r"garamond": "garamond",
    r"roboto": "roboto",
    r"averia": "averia",
    r"ecolier": "ecolier",
    r"breip": "breip",
    r"lxgw": "lxgw",
    r"inter\b": "inter",
    r"mondulkiri": "mondulkiri",
    r"stix": "stix",
    r"gfs-artemisia": "gfs-artemisia",
    r"oldania|oldstandard": "oldstandard",
}
"""Patterns of packages with the same outlines -> their group, which must share a split."""
_SCRIPT_VARIANT = re.compile(r"Noto(Sans|Serif)(?!CJK|Mono|Display|-|\.)", re.I)


def licence_of(package: Path) -> str:
    """Return the licence of an unpacked Debian package, or "" if it is not clearly free of copyleft."""
    path = package / "usr/share/doc" / package.name / "copyright"
    text = path.read_text(errors="ignore") if path.is_file() else ""
    stanza = re.search(r"^Files:\s*\*.*?^License:[ \t]*([^\n]+)", text, re.S | re.M)
    if stanza is not None:
        name = stanza.group(1).strip()
        free_choice = " or " in name and _CLEAN.search(name)
        return name if free_choice or (_CLEAN.search(name) and not _TAINTED.search(name)) else ""
    if re.search(r"SIL OPEN FONT LICENSE|SIL Open Font", text):
        return "OFL-1.1"
    if re.search(r"Apache License,? Version 2", text):
        return "Apache-2.0"
    return ""


def design_of(package: str) -> str:
    """Return the key of a font: its package, or the group of packages that share its design."""
    return next((group for pattern, group in _SAME_DESIGN.items() if re.search(pattern, package)), package[6:])


def scan(root: Path) -> dict[str, list[dict[str, object]]]:
    """Find the usable fonts of each script in ``root``, which has one folder a package."""
    found: dict[str, list[dict[str, object]]] = {script: [] for script in COVERAGE}
    seen: set[str] = set()
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in {".ttf", ".otf", ".ttc"} and p.is_file())
    licences = {package.name: licence_of(package) for package in root.iterdir()}
    for path in files:
        package = path.relative_to(root).parts[0]
        if path.name in seen or not licences[package]:
            continue
        if _NOT_TEXT.search(path.name) or _SCRIPT_VARIANT.search(path.name):
            continue
        seen.add(path.name)
        try:
            codes = TTFont(path, lazy=True, fontNumber=0).getBestCmap() or {}
        except (TTLibError, OSError, ValueError, AssertionError):
            continue
        entry: dict[str, object] = {
            "path": str(path.relative_to(root)),
            "design": design_of(package),
            "hand": bool(_HAND.search(f"{package}/{path.name}")),
            "package": package,
            "licence": licences[package],
        }
        for script, needed in COVERAGE.items():
            if all(code in codes for code in needed):
                found[script].append(entry)
    return found


def main() -> None:
    """Write ``fonts.json`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    found = scan(work / "src" / "fonts")
    (work / "fonts.json").write_text(json.dumps(found, indent=1, sort_keys=True))
    for script, entries in found.items():
        counts = (len(entries), len({e["design"] for e in entries}), len({e["design"] for e in entries if e["hand"]}))
        logging.getLogger(__name__).info("%s: %d fonts, %d designs, %d of them handwriting", script, *counts)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
