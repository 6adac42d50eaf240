"""Install packages into the environment of this Python: with uv, which takes seconds, or with pip, which takes minutes.

Run as `python deploy/install.py ARGUMENTS OF pip install`. uv reads no settings of pip, so its indexes and certificates
are passed on. If uv cannot be installed or fails, pip installs.

The environment variable TORCH_BACKEND (cpu, auto, cu126, ...) is uv's `--torch-backend`: the build of torch, from
PyTorch's own index. pip knows no such option, so that only uv installs then.
"""

import os
import subprocess
import sys

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
CONSTRAINTS = ("-c", "constraints.txt")
#: Setting of pip -> the same of uv.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


def uv_settings(pip_config: str) -> dict[str, str]:
    """Translate the output of `pip config list`, in which environment variables come last and win.

    Example:
        >>> uv_settings("global.index-url='https://here/simple'")
        {'UV_DEFAULT_INDEX': 'https://here/simple'}
    """
    found = {}
    for line in pip_config.splitlines():
        key, _, value = line.partition("=")
        if setting := SETTINGS.get(key.rpartition(".")[2]):
            links = setting == "UV_FIND_LINKS"
            found[setting] = (",".join if links else " ".join)(value.strip("'\"").replace("\\n", " ").split())
    return found


def with_uv(arguments: list[str], backend: str) -> bool:
    """Install uv and then the packages; return False if either fails."""
    if subprocess.run([*PIP, "install", "--quiet", *CONSTRAINTS, "uv"]).returncode:
        return False
    print("installing with uv", file=sys.stderr)
    config = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True).stdout
    # As pip, uv takes the best version of all indexes.
    command = ["uv", "pip", "install", "--python", sys.executable, "--index-strategy", "unsafe-best-match"]
    if backend:
        command += ["--torch-backend", backend]
    settings = {**uv_settings(config), **os.environ}
    return not subprocess.run([sys.executable, "-m", *command, *CONSTRAINTS, *arguments], env=settings).returncode


def main(arguments: list[str]) -> int:
    """Install, show the progress, and return the exit status."""
    backend = os.environ.get("TORCH_BACKEND", "")
    if with_uv(arguments, backend):
        return 0
    if backend:
        print(
            f"TORCH_BACKEND={backend}: only uv installs another build of torch, and it cannot install here, for the "
            "reason above: correct it, or leave TORCH_BACKEND out to get the build of your package index",
            file=sys.stderr,
        )
        return 1
    print("uv cannot install here; pip does, which takes minutes", file=sys.stderr)
    return subprocess.run([*PIP, "install", *CONSTRAINTS, *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
