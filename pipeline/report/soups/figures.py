"""Figure: each arm's mean rewards, joined along lambda, with the band of its resampled fronts."""

import textwrap
from dataclasses import replace
from itertools import combinations

import plotly.graph_objects as go

from pipeline.report.data.arms import GREY
from pipeline.report.data.clouds import Cloud
from pipeline.report.data.resamples import resampled_interval
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel, safe, shade
from pipeline.report.soups.completions import SplitCompletions
from pipeline.report.soups.samples import cut, shown_prompts
from pipeline.report.soups.scene import SoupScene

#: With more rewards than this, only the pairs with the first are drawn.
_ALL_PAIRS = 3
#: The arms that have a shade: other shades would cover them, and are as wide.
_SHADED = ("lines", "plain")
_HOVER = "%{hovertext}<extra></extra>"


def front_figures(scene: SoupScene, completions: SplitCompletions | None) -> list[Figure]:
    """Return one figure, with a panel for each pair of rewards; none without soups."""
    count = len(scene.rewards)
    pairs = [pair for pair in combinations(range(count), 2) if count <= _ALL_PAIRS or pair[0] == 0]
    height = 480 if len(pairs) == 1 else 380
    panels = [_panel(scene, completions, pair, height) for pair in pairs]
    legend = [cloud.arm for cloud in (*scene.soups, *_references(scene))]
    title = "Fronts" if len(pairs) == 1 else "Fronts of each pair of rewards"
    return [Figure(title, _note(scene), panels, legend, wide=len(pairs) == 1)] if scene.soups else []


def _note(scene: SoupScene) -> str:
    joined = "joined along λ" if any(soup.joined for soup in scene.soups) else "one mark a point"
    projected = " Each panel shows only two of the rewards." if len(scene.rewards) > 2 else ""
    return (
        f"Mean rewards, {joined}.{projected} A shade marks where a front lies in 95% of the resamples of prompts and "
        "completions. The fronts of a resample move together, so differences are more certain than the shades suggest. "
        "The controls have no shade, which keeps the others visible."
    )


def _references(scene: SoupScene) -> list[Cloud]:
    """The SFT model and the policies, in grey, because colours would make them look like arms."""
    looks = ((scene.sft, "SFT model", "star"), (scene.policies, "policies", "diamond-open"))
    return [
        replace(cloud, arm=replace(cloud.arm, name=name, colour=GREY, symbol=symbol))
        for cloud, name, symbol in looks
        if cloud is not None
    ]


def _panel(scene: SoupScene, completions: SplitCompletions | None, pair: tuple[int, int], height: int) -> Panel:
    x, y = (scene.rewards[k] for k in pair)
    traces: list[object] = [_band(scene, s, pair) for s in scene.soups if s.arm.role in _SHADED and len(s.labels) > 1]
    for soup in scene.soups:
        traces.append(_points(scene, completions, soup, pair, MarkStyle(joined=1.8 if soup.joined else 0)))
    for cloud in _references(scene):
        names = {"text": [safe(label or "SFT") for label in cloud.labels], "textposition": "bottom center"}
        trace = _points(scene, completions, cloud, pair, MarkStyle(15))
        traces.append(trace.update(names, mode="markers+text", cliponaxis=False))
    title = "" if len(scene.rewards) == 2 else f"{y} against {x}"
    return panel(title, traces, *(_axis(scene, reward) for reward in (x, y)), height=height)


def _axis(scene: SoupScene, reward: str) -> str:
    units = scene.units(reward)
    return f"{reward}, mean accuracy{units.suffix}" if units.percent else f"{reward}, mean reward"


def _band(scene: SoupScene, soup: Cloud, pair: tuple[int, int]) -> go.Scatter:
    x, y = (scene.units(scene.rewards[k]).axes(column) for k, column in zip(pair, soup.outline(*pair).T, strict=True))
    return shade(soup.arm, x, y, 0.13)


def _points(
    scene: SoupScene, completions: SplitCompletions | None, cloud: Cloud, pair: tuple[int, int], style: MarkStyle
) -> go.Scatter:
    x, y = (scene.units(scene.rewards[k]).axes(cloud.xy_PM[:, k]) for k in pair)
    return marks(cloud.arm, x, y, _hovers(scene, completions, cloud), _HOVER, style)


def _hovers(scene: SoupScene, completions: SplitCompletions | None, cloud: Cloud) -> list[str]:
    """For each point: its name, its rewards, and one completion."""
    prompt = shown_prompts(scene.prompts)[0]
    found = []
    for i, candidate in enumerate(cloud.candidates):
        lines = [f"{cloud.arm.name} {cloud.labels[i]}".strip()]
        for k, reward in enumerate(scene.rewards):
            mean = scene.units(reward).mean(resampled_interval(cloud.xy_SPM[:, i, k], scene.prompts))
            lines.append(f"{reward} {mean.text} {mean.detail}")
        text = None if completions is None else completions.first(candidate, prompt)
        lines += [] if text is None else textwrap.wrap(f"“{cut(text, 200)}”", 60)
        found.append("\n".join(lines))
    return found
