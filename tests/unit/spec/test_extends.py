"""Proves that a spec may extend another file, and that errors in doing so are reported."""

from pathlib import Path

import pytest

from pipeline.spec.load import load_spec

BELOW = """
backbone: {family: open_clip, model: embedded/tiny-vit}
base: embedded/base
experts: {mnist: embedded/mnist}
tasks: [mnist]
limits: {val: 10, test: 20}
"""
ABOVE = """
extends: parts/below.yaml
name: above
experts: {emoji: embedded/emoji}
tasks: [mnist, emoji]
limits: {val: 5}
arms: {sum: {merge: sum}}
"""


def write(folder: Path, above: str = ABOVE, below: str = BELOW) -> Path:
    (folder / "parts").mkdir()
    (folder / "parts" / "below.yaml").write_text(below)
    (folder / "above.yaml").write_text(above)
    return folder / "above.yaml"


def test_mappings_are_merged_and_lists_are_replaced(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path))
    assert list(spec.experts) == ["mnist", "emoji"]
    assert list(spec.tasks) == ["mnist", "emoji"]
    assert spec.limits == {"val": 5, "test": 20}


@pytest.mark.parametrize(
    ("above", "below", "message"),
    [
        (ABOVE.replace("parts/below.yaml", "[1]"), BELOW, "above.yaml: extends: must be the name of a file"),
        (ABOVE.replace("below", "blow"), BELOW, "above.yaml: extends: .*parts/blow.yaml: cannot be read"),
        (ABOVE, BELOW + "extends: ../above.yaml", "extend each other in a circle"),
        (ABOVE, "[]", "below.yaml: must be a mapping"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, above: str, below: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_spec(write(tmp_path, above, below))
