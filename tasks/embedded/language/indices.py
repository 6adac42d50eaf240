"""Index files of this machine's apt sources, fetched into a private folder without changing apt's state."""

import bz2
import gzip
import lzma
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

_REMEDY = (
    "run it on a machine whose apt-get reaches its sources, or give by --lists a folder with Translation-en and "
    "Packages of a Debian release (plain, .xz, .gz or .bz2), as on mirrors"
)
#: Update hooks would clean the system's caches, and container images often disable descriptions.
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
    """Fetch the indices of all of this machine's sources into a new `folder`; return the folder of the lists.

    Raises:
        ValueError: if there is no apt-get, or it fails; the message explains what to do.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise ValueError(f"package descriptions: there is no apt-get here; {_REMEDY}")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder.resolve()))
    done = subprocess.run([apt, "-c", str(configuration), "update"], capture_output=True, text=True)
    # apt only warns of an unreachable source; reading the lists shows whether they suffice.
    if done.returncode or not any(lists.glob("*Translation-en")):
        messages = " / ".join(line for line in done.stderr.splitlines() if line[:2] in {"E:", "W:"})
        raise ValueError(
            f"package descriptions: apt-get update fetched none ({messages or 'without a message'}); {_REMEDY}"
        )
    return lists


def texts(lists: Path, index: str) -> list[str]:
    """Return the contents of the files in `lists` whose names end in `index` ("Translation-en"), sorted by name.

    Raises:
        ValueError: if there is none, or one cannot be read.
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
