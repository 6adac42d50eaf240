"""Draw what `benchmarks.merge --json` measured as bars: our share of mergekit's time and memory, method by method.

Matplotlib is not a part of this project: install it where you run this.
Run: python -m benchmarks.merge_chart merge.json merge.svg --how command --title "134 M, bfloat16 (CPU, 2026-11-29)"
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

_LABELS = {"cpu": "CPU seconds", "wall": "wall seconds", "memory": "peak memory"}
_COLOURS = ("#0072b2", "#56b4e9", "#e69f00")


def main() -> None:
    """Read the figures and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--how", nargs="*", default=["command", "memory"])
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    found = json.loads(options.figures.read_text())
    figure, panels = plt.subplots(len(options.how), 1, figsize=(9, 3.2 * len(options.how)), squeeze=False, sharex=True)
    for how, axes in zip(options.how, panels[:, 0], strict=True):
        for place, (unit, label) in enumerate(_LABELS.items()):
            at = [i + (place - 1) * 0.27 for i in range(len(found))]
            axes.bar(at, [each[how][unit][2] for each in found.values()], 0.27, label=label, color=_COLOURS[place])
        axes.axhline(1, color="black", linewidth=1)
        axes.set_ylabel("ours / mergekit")
        axes.set_title(how, fontsize=10)
        axes.set_xticks(range(len(found)), list(found), rotation=35, ha="right")
    panels[0, 0].legend(ncols=3, fontsize=8)
    figure.suptitle(options.title, fontsize=10)
    figure.tight_layout()
    figure.savefig(options.picture)


if __name__ == "__main__":
    main()
