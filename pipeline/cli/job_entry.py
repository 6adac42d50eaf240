"""The entry point of a submitted job on the cluster's head: check versions, then `lines run` on the cluster.

Before the versions are checked, only the standard library is imported: a wrong Python may have no other packages.
"""

import json
import sys
from pathlib import Path

from pipeline.cluster.jobs.layout import ARGUMENTS, SPEC
from pipeline.signals import stop_on_signals
from pipeline.versions import check_versions, comparable_versions


def main() -> None:
    """Run the job of the working directory; the exit status is that of `lines run`."""
    job = json.loads(Path(ARGUMENTS).read_text(encoding="utf-8"))
    if job["versions"]:
        try:
            check_versions(comparable_versions(), job["versions"])
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    stop_on_signals()  # a cancelled job ends as by Ctrl-C: the journal is closed and complete
    from pipeline.cli.main import app

    out: str = job["out"]
    place = out if "://" in out else str(Path(out).expanduser())
    app(["run", SPEC, "--out", place, *job["arguments"]])


if __name__ == "__main__":
    main()
