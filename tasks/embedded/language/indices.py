"""Index files of the machine's own apt sources, fetched into a private folder: apt's own state stays as it is."""

import bz2
import gzip
import lzma
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

_REMEDY = (
    "run it where apt-get reaches its sources, or name with --lists a folder that holds Translation-en and Packages of "
    "a Debian release (plain, .xz, .gz or .bz2), as mirrors have them"
)
#: Hooks of an update would clean the system's caches, and images of containers often ask for no descriptions.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
Acquire::Languages "en";
Acquire::GzipIndexes "false";
Acquire::Retries "1";
APT::Sandbox::User "root";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{folder}";
Dir::Log "{folder}";
"""
_PLAIN: dict[str, Callable[[bytes], bytes]] = {"": bytes}
_PLAIN |= {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}


def fetch(folder: Path) -> Path:
    """Fetch the indices of every source of this machine into `folder`, which is made; returns the folder of the lists.

    Raises:
        ValueError: there is no apt-get, or it fails; says what to do.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise ValueError(f"package descriptions: there is no apt-get here; {_REMEDY}")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder.resolve()))
    done = subprocess.run([apt, "-c", str(configuration), "update"], capture_output=True, text=True)
    # A source that cannot be reached is a warning to apt: whether the lists suffice is seen by reading them.
    if done.returncode or not any(lists.glob("*Translation-en")):
        said = " / ".join(line for line in done.stderr.splitlines() if line[:2] in {"E:", "W:"})
        raise ValueError(
            f"package descriptions: apt-get update fetched none ({said or 'without a message'}); {_REMEDY}"
        )
    return lists


def texts(lists: Path, index: str) -> list[str]:
    """Contents of the files of `lists` whose names end in `index` ("Translation-en", "Packages"), by name.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    paths = sorted(path for path in lists.glob(f"*{index}*") if path.name.rpartition(index)[2] in _PLAIN)
    if not paths:
        raise ValueError(f"package descriptions: no file {index} in {lists}; {_REMEDY}")
    return [_text(path, _PLAIN[path.name.rpartition(index)[2]]) for path in paths]


def _text(path: Path, plain: Callable[[bytes], bytes]) -> str:
    try:
        return plain(path.read_bytes()).decode()
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"package descriptions: {path}: cannot be read ({error}); {_REMEDY}") from error
