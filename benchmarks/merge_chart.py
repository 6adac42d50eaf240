"""Draw what `benchmarks.merge --json` measured as bars: our share of mergekit's time and memory, method by method.

Matplotlib is not a part of this project: install it where you run this. Several files of figures make one picture.
Run: python -m benchmarks.merge_chart merge.json -o merge.svg --title "134 M parameters, bfloat16, AMD EPYC, 2026-11-29"
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

#: How both were called -> title of the panel.
_PANELS = {
    "command": "whole commands: lines merge / mergekit-yaml",
    "files": "from files to files, after imports: merge_files / run_merge",
    "memory": "from files to memory, after imports: lines_sweep.merge / mergekit's executor",
}
_LABELS = {"cpu": "CPU seconds", "wall": "wall seconds", "memory": "peak memory"}
_COLOURS = ("#0072b2", "#56b4e9", "#e69f00")
_WIDTH = 0.27


def draw(axes: Axes, ratios: dict[str, dict[str, list[float]]]) -> None:
    """Draw one panel: method -> unit -> ours, mergekit's, ratio."""
    for place, (unit, label) in enumerate(_LABELS.items()):
        at = [i + (place - 1) * _WIDTH for i in range(len(ratios))]
        axes.bar(at, [each[unit][2] for each in ratios.values()], _WIDTH, label=label, color=_COLOURS[place])
    axes.axhline(1, color="black", linewidth=1)
    axes.set_ylabel("ours / mergekit (less is better)")
    axes.set_xticks(range(len(ratios)), list(ratios), rotation=30, ha="right")


def main() -> None:
    """Read the figures and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--title", default="", help="models, machine and date")
    options = parser.parse_args()
    ratios: dict[str, dict[str, dict[str, list[float]]]] = {}
    for path in options.figures:
        for method, ways in json.loads(path.read_text()).items():
            for how, units in ways.items():
                ratios.setdefault(how, {})[method] = units
    plt.rcParams |= {"svg.hashsalt": "lines", "font.size": 9}
    figure, panels = plt.subplots(len(ratios), 1, figsize=(9, 3.4 * len(ratios)), squeeze=False)
    for axes, how in zip(panels[:, 0], sorted(ratios), strict=True):
        draw(axes, ratios[how])
        axes.set_title(_PANELS[how], fontsize=10)
    panels[0, 0].legend(ncols=3, fontsize=8)
    figure.suptitle(options.title, fontsize=10)
    figure.tight_layout()
    figure.savefig(options.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
