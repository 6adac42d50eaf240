"""Proves how Debian's indices become prompts: paragraphs, exclusions, duplicates, and splits by source."""

import bz2
import gzip
import json
import lzma
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tasks.embedded.language.build import build_packages, main
from tasks.embedded.language.indices import fetch, texts
from tasks.embedded.language.packages import Description, Pair, descriptions, pairs, sources, split_of

TRANSLATION = """\
Package: zview
Description-md5: 0123
Description-en: viewer of large log files - documentation
 Zview shows log files of many gigabytes without reading them into memory
 first, and searches them while they grow.
 .
 Features:
  * colours
  * regular expressions
 .
 This package contains the manual.

Package: nodescription
Description-md5: 4567

Package: oldview
Description-md5: 89ab
Description-en: transitional package for zview
 This is a transitional package. It can safely be removed once nothing needs it any more, and so on, and so on, until
 it is long enough to be of use.
"""
PACKAGES = """\
Package: zview
Source: zview-suite (1.2-3)
Version: 1.2-3+b1
Description: viewer of large log files - documentation

Package: zlib
Version: 2

Package: libz-dev
Source: zlib
"""
LONG = (
    "A tool that counts the words of a text, and draws a picture in which common words are large and rare ones small. "
)
ORIGINS = {"alpha": "alpha", "beta": "beta", "gamma": "gamma"}


def described(package: str, synopsis: str, *paragraphs: str) -> Description:
    return Description(package, synopsis, paragraphs or (LONG + package * 10,))


def numbered(n: int) -> tuple[list[Description], dict[str, str]]:
    """Write `n` packages, three a source, whose texts differ in their letters."""
    words = ["".join(chr(ord("a") + int(digit)) for digit in str(i)) for i in range(n)]
    found = [described(f"p{w}", f"counter of {w} words", f"{w} here: {LONG}{w}") for w in words]
    return found, {f"p{w}": f"source{i // 3}" for i, w in enumerate(words)}


def test_an_index_is_read_stanza_by_stanza_with_its_paragraphs() -> None:
    zview, oldview = descriptions(TRANSLATION)
    assert zview == Description(
        "zview",
        "viewer of large log files - documentation",
        (
            "Zview shows log files of many gigabytes without reading them into memory first, and searches them while "
            "they grow.",
            "Features: * colours * regular expressions",
            "This package contains the manual.",
        ),
    )
    assert oldview.package == "oldview"


def test_a_source_package_is_its_field_without_version_or_the_package_itself() -> None:
    assert sources(PACKAGES) == {"zview": "zview-suite", "zlib": "zlib", "libz-dev": "zlib"}


def test_a_pair_has_no_placeholder_no_boilerplate_and_no_name_of_a_part() -> None:
    (pair,) = pairs(descriptions(TRANSLATION), {"zview": "zview-suite", "oldview": "zview-suite"})
    assert pair == Pair(
        "zview",
        "zview-suite",
        "Zview shows log files of many gigabytes without reading them into memory first, and searches them while "
        "they grow. Features: * colours * regular expressions",
        "viewer of large log files",
    )
    assert set(pair.row()) == {"source", "reference", "package"}


@pytest.mark.parametrize(
    "left_out",
    [
        described("beta", "counter of words, dummy package"),
        described("beta", "too short"),
        described("beta", "words " * 20),
        described("beta", "another counter of words", "Counts words."),
        described("beta", "another counter of words", LONG * 20),
        described("beta", "another counter of words", "This package provides " + LONG),
        described("beta", "another counter of words", f'This metapackage enables feature "x". {LONG}'),
        described("nobody", "another counter of words"),
    ],
    ids=[
        "dummy",
        "short",
        "long",
        "source too short",
        "source too long",
        "boilerplate",
        "feature",
        "no source package",
    ],
)
def test_what_is_of_no_use_is_left_out(left_out: Description) -> None:
    good = described("alpha", "counter of words")
    assert [pair.package for pair in pairs([good, left_out], ORIGINS)] == ["alpha"]


@pytest.mark.parametrize(
    "again",
    [
        described("alpha", "an older text about words", LONG + "older"),
        described("beta", "Counter of words 12"),
        described("beta", "another counter of words", (LONG * 2).upper()),
    ],
    ids=["same package", "same synopsis", "same text"],
)
def test_of_equal_packages_one_stays_whatever_the_order(again: Description) -> None:
    good = described("alpha", "counter of words", LONG * 2)
    other = described("gamma", "something else entirely")
    kept = pairs([good, again, other], ORIGINS)
    assert len(kept) == 2
    assert kept == pairs([other, again, good], ORIGINS)


def test_no_source_package_is_in_two_splits_and_the_shares_are_as_said() -> None:
    found, origins = numbered(6000)
    split = defaultdict(set)
    kept = pairs(found, origins)
    for pair in kept:
        split[pair.origin].add(split_of(pair.origin))
    assert len(kept) == 6000 and len(split) == 2000
    assert all(len(names) == 1 for names in split.values())
    shares = Counter(name for names in split.values() for name in names)
    assert [shares[name] / 2000 for name in ("train", "val", "test")] == pytest.approx([0.84, 0.04, 0.12], abs=0.02)


def test_the_order_mixes_the_packages_and_is_always_the_same() -> None:
    found, origins = numbered(300)
    names = [pair.package for pair in pairs(found, origins)]
    assert names == [pair.package for pair in pairs(reversed(found), origins)]
    assert names != sorted(names) and sorted(names) == sorted(item.package for item in found)


def test_files_are_written_from_index_files_plain_or_compressed(tmp_path: Path) -> None:
    found, origins = numbered(12000)
    stanzas = [f"Package: {d.package}\nDescription-en: {d.synopsis}\n {d.paragraphs[0]}\n" for d in found]
    index = "\n".join(f"Package: {package}\nSource: {origin} (1.0)\n" for package, origin in origins.items())
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "here_main_i18n_Translation-en").write_text("\n".join(stanzas[:4000]))
    (lists / "there_main_i18n_Translation-en.bz2").write_bytes(bz2.compress("\n".join(stanzas[4000:]).encode()))
    (lists / "Packages.xz").write_bytes(lzma.compress(index.encode()))
    target = tmp_path / "packages"
    build_packages(target, lists)
    rows = {p.stem: [json.loads(line) for line in p.read_text().splitlines()] for p in target.iterdir()}
    kept = pairs(found, origins)
    for split in ("train", "val", "test"):
        assert rows[split] == [pair.row() for pair in kept if split_of(pair.origin) == split]
    assert [path.name for path in tmp_path.iterdir() if path not in (lists, target)] == []


def test_too_few_descriptions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Translation-en").write_text(TRANSLATION)
    (tmp_path / "Packages").write_text(PACKAGES)
    with pytest.raises(ValueError, match="usable for train, at least 5000 are needed.*whole main section"):
        build_packages(tmp_path / "packages", tmp_path)
    assert not (tmp_path / "packages").exists()


def test_a_missing_index_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file Packages in .*--lists"):
        texts(tmp_path, "Packages")


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".gz", gzip.compress(PACKAGES.encode(), mtime=0)[:-20]),
        (".xz", lzma.compress(PACKAGES.encode())[:-20]),
        (".bz2", bz2.compress(PACKAGES.encode())[:-20]),
        (".gz", gzip.compress(PACKAGES.encode(), mtime=0)[:12] + bytes([255] * 40)),
        ("", b"Package: \xff"),
    ],
)
def test_a_broken_index_file_is_named_with_what_to_do(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"Packages{suffix}").write_bytes(data)
    with pytest.raises(ValueError, match=rf"Packages{suffix}: cannot be read \(.*--lists"):
        texts(tmp_path, "Packages")


def test_without_apt_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"no apt-get here; .*--lists"):
        fetch(tmp_path / "apt")


def test_an_apt_that_fetches_nothing_is_an_error_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'W: Failed to fetch somewhere' >&2\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"fetched none \(W: Failed to fetch somewhere\); .*--lists"):
        fetch(tmp_path / "apt")


def test_one_part_is_built_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path))
    (tmp_path / "language" / "minilm").mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["build", "minilm"])
    main()
    assert capsys.readouterr().out == f"embedded/minilm: there already: {tmp_path / 'language' / 'minilm'}\n"
    monkeypatch.setattr("sys.argv", ["build", "minlm"])
    with pytest.raises(SystemExit):
        main()
    assert "minlm: unknown name; did you mean 'minilm'?" in capsys.readouterr().err
