"""Folders of images as an image source: ROOT/CLASS/* or ROOT/{train,val,test}/CLASS/*."""

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

from tasks.files.cache import digest
from tasks.registry import near
from tasks.vision.file_tree import FileTree
from tasks.vision.images import ImageRecord, Undecodable, all_read, content_hash, in_validation

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_SPLITS = ("train", "val", "test")
DEFAULT_TEMPLATES = ("a photo of a {}.",)


class FolderSource:
    """An image source with one folder a class.

    The splits are found in this order:

    - if there are folders `val` and `test`, they are used as they are;
    - if one of them is missing, `val` is cut from `train`, or both from `val`, by content hash;
    - if there are no split folders, both are cut from all images;
    - if there is only `test`, as for a shifted set, there is no val.

    Links are followed; hidden and system files are skipped. Folders whose names differ in Unicode form only are one
    class.

    If val is cut, `val_fraction` is its share. The rest of `train` is never scored; `train_records` returns it for
    fine-tuning.
    """

    def __init__(
        self,
        root: Path,
        class_names: Mapping[str, str] | None = None,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        val_fraction: float = 0.2,
    ) -> None:
        """List the folder.

        Args:
            root: the data set's folder.
            class_names: class folder -> name in prompts; by default the folder's name, with "_" as a space.
            templates: prompts with one {}.
            val_fraction: share that becomes val if val is cut by content hash; in (0, 1).

        Raises:
            ValueError: if there is no folder or no class, links lead nowhere, split folders are mixed with class
                folders, or `class_names` has an unknown class.
        """
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; {near(root.name, (p.name for p in root.parent.glob('*')))}")
        if not (isinstance(val_fraction, float | int) and 0 < val_fraction < 1):
            raise ValueError(f"{root}: val_fraction: must be in (0, 1), got {val_fraction!r}")
        self.name = str(root)
        self.templates = templates
        self._val_fraction = val_fraction
        tree = FileTree(root)
        self._split_folders = _split_folders(tree)
        class_folders = {split: tree.folders(part) for split, part in self._split_folders.items()}
        self._class_of = _classes({p.name for folders in class_folders.values() for p in folders})
        self._classes = sorted(set(self._class_of.values()))
        self._labels = {name: label for label, name in enumerate(self._classes)}
        self._files = {split: _images(tree, folders) for split, folders in class_folders.items()}
        tree.check()
        if not self._classes:
            images = sum(p.suffix.lower() in SUFFIXES for p in root.iterdir())
            got = f" but {images} images, as a class folder does; name the folder above it" if images else ""
            raise ValueError(f"{root}: holds no class folders{got}: images belong into ROOT/CLASS/ or ROOT/test/CLASS/")
        names = _checked_names(root, class_names or {}, self._classes)
        self.class_names = [names.get(c, c.replace("_", " ")) for c in self._classes]
        _check_distinct(root, dict(zip(self._classes, self.class_names, strict=True)))
        self._check_depth(root)
        self._warn_of_classes()
        self.fingerprint = digest(self._listing(root.resolve()))

    def _check_depth(self, root: Path) -> None:
        """Refuse a folder all of whose images are a level too deep; some in folders within class folders are fine."""
        paths = [p.relative_to(self._split_folders[split]).parts for split, files in self._files.items() for p in files]
        if paths and all(len(parts) > 2 for parts in paths):
            raise ValueError(
                f"{root}: every image is a level deeper than ROOT/CLASS/IMAGE, for example {'/'.join(paths[0])}: name "
                f"the folder whose subfolders are the classes (split folders must be called {', '.join(_SPLITS)})"
            )

    def _warn_of_classes(self) -> None:
        """Warn of classes without images, which stay in the prompts: right for a sample, wrong for a misspelt name."""
        have = {
            split: {self._class(split, p) for p in files}
            for split, files in self._files.items()
            if split != "train" or "val" not in self._files
        }
        for split, classes in have.items():
            if lack := [c for c in self._classes if c not in classes]:
                where = "" if split == "all" else f" in {split}"
                logger.warning(
                    "%s: %d of %d classes have no images%s, and stay in the prompts: %s",
                    self.name,
                    len(lack),
                    len(self._classes),
                    where,
                    ", ".join(lack[:5]),
                )

    def _class(self, split: str, path: Path) -> str:
        return self._class_of[path.relative_to(self._split_folders[split]).parts[0]]

    def _listing(self, root: Path) -> list[str]:
        """Return all that `records` depends on, without reading files: paths, sizes and times stand for the bytes.

        This runs at every start, and hashing a large data set takes minutes. The change time cannot be set back, unlike
        the modification time, which archives restore. A score's identity has the hash of the pixels instead.
        """
        lines = [str(root), str(self._val_fraction), *self._classes]
        for files in self._files.values():
            for path in files:
                stat = path.stat()
                lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
        return lines

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """Hash and split all images of val and test."""
        read = self._read(*(split for split in self._files if split != "train" or "val" not in self._files))
        pools = [split for split in ("train", "val", "all") if split in read]
        if not pools or {"val", "test"} <= set(read):
            return read
        val, rest = self._cut(read[pools[0]])
        return {"val": val, "test": read.get("test", rest)}

    def train_records(self) -> Sequence[ImageRecord]:
        """Return the images of the folder `train` that are not cut for val; none without that folder."""
        if "train" not in self._files:
            return []
        records = self._read("train")["train"]
        return records if "val" in self._files else self._cut(records)[1]

    def _cut(self, pool: Sequence[ImageRecord]) -> tuple[list[ImageRecord], list[ImageRecord]]:
        val = [r for r in pool if in_validation(r.digest, self._val_fraction)]
        return val, [r for r in pool if not in_validation(r.digest, self._val_fraction)]

    def _read(self, *splits: str) -> dict[str, list[ImageRecord]]:
        with ThreadPoolExecutor() as pool:
            found = {split: list(pool.map(partial(self._record, split), self._files[split])) for split in splits}
        all_read(self.name, chain.from_iterable(found.values()))
        return {split: all_read(self.name, part) for split, part in found.items()}

    def _record(self, split: str, path: Path) -> ImageRecord | Undecodable:
        try:
            return ImageRecord(str(path), self._labels[self._class(split, path)], content_hash(path.read_bytes()), path)
        except OSError as error:
            return Undecodable(str(path), error.strerror or str(error))


def _classes(folders: Iterable[str]) -> dict[str, str]:
    """Return the class of each folder's name: the name, or its composed form if several differ in Unicode form only."""
    forms = defaultdict(set)
    for name in folders:
        forms[unicodedata.normalize("NFC", name)].add(name)
    return {name: composed if len(names) > 1 else name for composed, names in forms.items() for name in names}


def _split_folders(tree: FileTree) -> dict[str, Path]:
    """Return split -> folder; {"all": root} if the class folders are directly in it."""
    root = tree.root
    folders = {p.name: p for p in tree.folders(root)}
    found = {name: folders[name] for name in _SPLITS if name in folders}
    if not found:
        return {"all": root}
    if strangers := sorted(set(folders) - set(found)):
        raise ValueError(
            f"{root}: holds {strangers[0]!r} besides {sorted(found)}: must hold either split folders, called "
            f"{', '.join(_SPLITS)}, or class folders"
        )
    if list(found) == ["train"]:
        tree.check()
        raise ValueError(f"{root}: holds train only, which is never scored: add val or test")
    return found


def _images(tree: FileTree, folders: Sequence[Path]) -> list[Path]:
    files = sorted(p for folder in folders for p in tree.files(folder))
    if others := Counter(p.suffix.lower() for p in files if p.suffix.lower() not in SUFFIXES):
        where, known = folders[0].parent, sorted(SUFFIXES)
        logger.warning("%s: left out %d files that are not %s: %s", where, others.total(), known, dict(others))
    return [p for p in files if p.suffix.lower() in SUFFIXES]


def _checked_names(root: Path, names: Mapping[str, str], classes: Sequence[str]) -> Mapping[str, str]:
    if not isinstance(names, Mapping):
        raise ValueError(f"{root}: class_names: must be a mapping of class folder to name, got {names!r}")
    composed = {unicodedata.normalize("NFC", name): name for name in classes}
    for name in names:
        if unicodedata.normalize("NFC", name) not in composed:
            raise ValueError(f"{root}: class_names: no class folder {name!r}; {near(name, classes)}")
    return {composed[unicodedata.normalize("NFC", name)]: prompt for name, prompt in names.items()}


def _check_distinct(root: Path, names: Mapping[str, str]) -> None:
    """Refuse names that differ in case only: tokenizers lower the case, so two classes would have one prompt."""
    seen: dict[str, str] = {}
    for folder, name in names.items():
        if (other := seen.setdefault(name.casefold(), folder)) != folder:
            raise ValueError(
                f"{root}: the class folders {other!r} and {folder!r} have one name in prompts ({name!r}): give "
                "the folder one name in every split, or give the classes different names by class_names"
            )
