"""Proves that `lines doctor` marks what has not been tried on real devices."""

from pipeline.cli.doctor import _packages


def test_vllm_is_marked_experimental_and_never_required() -> None:
    name, good, found = list(_packages())[-1]
    assert (name, good) == ("vLLM", True)
    assert "experimental, as it has not run on a GPU yet" in found
