"""What a submitted job runs on the cluster's head: check versions, then `lines run` on the cluster.

Nothing but the standard library is imported before the versions are known to be good: a wrong Python has nothing else.
"""

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.cluster.jobs.layout import ARGUMENTS, SPEC
from pipeline.versions import check_versions, versions_here


def main() -> None:
    """Run the job that lies in the working directory; the exit status is that of `lines run`."""
    job = json.loads(Path(ARGUMENTS).read_text(encoding="utf-8"))
    if job["versions"]:
        try:
            check_versions(versions_here(), job["versions"])
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    signal.signal(signal.SIGTERM, _stop)
    from pipeline.cli.main import app

    app(["run", SPEC, "--out", _place(job["out"]), *job["arguments"]])


def _place(out: str) -> str:
    return out if "://" in out else str(Path(out).expanduser())


def _stop(number: int, frame: FrameType | None) -> Any:
    """A cancelled job is stopped as by Ctrl-C: the journal is closed, and nothing of it is lost."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
