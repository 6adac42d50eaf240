"""Proves that the GPU benchmark prints all of its table in a dry run on a CPU, and ends when its time is over."""

import pytest

from benchmarks.gpu.__main__ import main

PARTS = ["--tiny", "--rounds", "1", "--without", "ray", "compile"]


def test_every_row_of_a_dry_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(PARTS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["float32", "bfloat16", "bfloat16"]
    assert all("candidates/s" in line and "times a memcpy" in line for line in lines[1:3])
    assert lines[3].endswith("out of memory: 2 shards failed as they should, 14 others have the same bits")


def test_rows_for_which_no_time_is_left_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    main([*PARTS, "--minutes", "0"])
    assert capsys.readouterr().out.count("left out, the time is over") == 3
