"""Cost of keeping a run in an object store, on an S3 server on this machine: `python -m benchmarks.storage`.

Appends realistic records to a journal at a given rate, and counts the store's requests by method; then measures how
fast a long backlog is sent and read back.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from store import KEYS, Proxy, s3_server  # noqa: E402

from pipeline.records.append_log import AppendLog  # noqa: E402
from pipeline.records.journal import FILE_NAME  # noqa: E402
from pipeline.storage.run_folder import open_run  # noqa: E402
from pipeline.storage.segments import Chain  # noqa: E402
from tasks.files.object_store import StoreFolder  # noqa: E402

_LINE = 420


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the journal is appended to")
    parser.add_argument("--rate", type=float, default=50.0, help="records a second")
    parser.add_argument("--backlog", type=int, default=200_000, help="records sent at once")
    args = parser.parse_args()
    with s3_server() as (port, _), tempfile.TemporaryDirectory() as cache:
        proxy = Proxy(port)
        os.environ.update({**KEYS, "AWS_ENDPOINT_URL": proxy.url, "LINES_SWEEP_CACHE": cache})
        _steady(proxy, args.seconds, args.rate)
        _backlog(args.backlog)


def _record(number: int) -> dict[str, object]:
    return {"record": "note", "number": number, "text": "x" * (_LINE - 50)}


def _steady(proxy: Proxy, seconds: float, rate: float) -> None:
    url, written = "s3://bucket/steady", 0
    place = StoreFolder.open(url)
    with open_run(url) as opened, AppendLog(opened.folder / FILE_NAME) as log:
        before, started = proxy.counts.copy(), time.monotonic()
        while time.monotonic() - started < seconds:
            log.append([_record(written)])
            written += 1
            time.sleep(1 / rate)
        counts = proxy.counts - before
        opened.check()
        segments = len([name for name in place.entries() if name.startswith("journal/")])
    minutes = seconds / 60
    requests = ", ".join(f"{count / minutes:.0f} {method}" for method, count in sorted(counts.items()))
    print(f"steady: {written / seconds:.0f} records a second: requests a minute: {requests}; {segments} objects")


def _backlog(records: int) -> None:
    url = "s3://bucket/backlog"
    started = time.monotonic()
    with open_run(url) as opened:
        with AppendLog(opened.folder / FILE_NAME) as log:
            log.append(_record(i) for i in range(records))
        size = (opened.folder / FILE_NAME).stat().st_size
        written = time.monotonic()
    sent = time.monotonic()
    times = []
    for _ in range(3):
        before = time.monotonic()
        assert len(Chain(StoreFolder.open(url), "reader").read()) == size
        times.append(time.monotonic() - before)
    print(
        f"backlog: {records:,} records, {size / 1e6:.0f} MB: written in {written - started:.1f} s, in the store after "
        f"{sent - written:.1f} s more ({size / 1e6 / (sent - written):.0f} MB a second); read back in "
        f"{statistics.median(times):.2f} s"
    )


if __name__ == "__main__":
    main()
