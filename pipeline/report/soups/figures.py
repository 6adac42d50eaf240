"""Figure: each arm's mean rewards, joined along lambda, with where its front runs in 95% of the resamples."""

import textwrap
from dataclasses import replace
from itertools import combinations

import plotly.graph_objects as go

from pipeline.report.data.arms import GREY
from pipeline.report.data.fronts import Front
from pipeline.report.figures.figure import Figure, Panel, panel, safe, translucent
from pipeline.report.soups.completions import SplitCompletions
from pipeline.report.soups.resamples import interval
from pipeline.report.soups.samples import cut, shown_prompts
from pipeline.report.soups.scene import Soup, SoupScene
from pipeline.report.tables.table import Units
from search.pareto import Array, non_dominated

UNITS = Units(percent=False)
#: Resampled fronts behind a shade: its edge does not move visibly with more, and the page stays small.
_DRAWN = 200
#: Of more rewards than this, only the pairs with the first are drawn.
_ALL_PAIRS = 3
#: The arms that have a shade: the other shades would cover them, and are as wide.
_SHADED = ("lines", "plain")


def front_figures(scene: SoupScene, completions: SplitCompletions | None) -> list[Figure]:
    """One figure, a panel for each pair of rewards; none without soups."""
    count = len(scene.rewards)
    pairs = [pair for pair in combinations(range(count), 2) if count <= _ALL_PAIRS or pair[0] == 0]
    height = 480 if len(pairs) == 1 else 380
    panels = [_panel(scene, completions, pair, height) for pair in pairs]
    legend = [soup.arm for soup in (*scene.soups, *_references(scene))]
    title = "Fronts" if len(pairs) == 1 else "Fronts of each pair of rewards"
    return [Figure(title, _note(scene), panels, legend, wide=len(pairs) == 1)] if scene.soups else []


def _note(scene: SoupScene) -> str:
    joined = "joined along λ" if any(soup.joined for soup in scene.soups) else "one mark a point"
    projected = " Only two of the rewards are seen in each panel." if len(scene.rewards) > 2 else ""
    return (
        f"Mean rewards, {joined}.{projected} A shade is where a front runs in 95% of the resamples of prompts and "
        "completions; fronts move together in these, so that differences are surer than shades look. The controls have "
        "none, to keep the others visible."
    )


def _references(scene: SoupScene) -> list[Soup]:
    """The SFT model and the policies, in grey: in colours of their own they would pass for arms."""
    looks = ((scene.sft, "SFT model", "star"), (scene.policies, "policies", "diamond-open"))
    return [
        replace(soup, arm=replace(soup.arm, name=name, colour=GREY, symbol=symbol))
        for soup, name, symbol in looks
        if soup is not None
    ]


def _panel(scene: SoupScene, completions: SplitCompletions | None, pair: tuple[int, int], height: int) -> Panel:
    x, y = (scene.rewards[k] for k in pair)
    traces: list[object] = [_shade(soup, pair) for soup in scene.soups if _is_shaded(soup)]
    traces += [_points(scene, completions, soup, pair) for soup in scene.soups]
    traces += [_marks(scene, completions, soup, pair) for soup in _references(scene)]
    title = "" if len(scene.rewards) == 2 else f"{y} against {x}"
    return panel(title, traces, f"{x}, mean reward", f"{y}, mean reward", height=height)


def _is_shaded(soup: Soup) -> bool:
    return soup.arm.role in _SHADED and len(soup.labels) > 1


def _shade(soup: Soup, pair: tuple[int, int]) -> go.Scatter:
    xy_SP2 = soup.mean_SPK[:, :, pair]
    front = Front([], xy_SP2[0], xy_SP2[1 : 1 + _DRAWN].transpose(1, 0, 2), non_dominated(xy_SP2[0]))
    outline_Q2: Array = front.outline()
    return go.Scatter(
        x=UNITS.axes(outline_Q2[:, 0]),
        y=UNITS.axes(outline_Q2[:, 1]),
        fill="toself",
        fillcolor=translucent(soup.arm.colour, 0.13),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=soup.arm.name,
    )


def _points(scene: SoupScene, completions: SplitCompletions | None, soup: Soup, pair: tuple[int, int]) -> go.Scatter:
    return go.Scatter(
        x=UNITS.axes(soup.mean_SPK[0, :, pair[0]]),
        y=UNITS.axes(soup.mean_SPK[0, :, pair[1]]),
        mode="lines+markers" if soup.joined else "markers",
        line={"color": soup.arm.colour, "width": 1.8, "dash": soup.arm.dash},
        marker={"color": soup.arm.colour, "size": 8, "symbol": soup.arm.symbol},
        hovertext=_hovers(scene, completions, soup),
        hovertemplate="%{hovertext}<extra></extra>",
        name=soup.arm.name,
    )


def _marks(scene: SoupScene, completions: SplitCompletions | None, soup: Soup, pair: tuple[int, int]) -> go.Scatter:
    return go.Scatter(
        x=UNITS.axes(soup.mean_SPK[0, :, pair[0]]),
        y=UNITS.axes(soup.mean_SPK[0, :, pair[1]]),
        mode="markers+text",
        marker={"color": soup.arm.colour, "size": 15, "symbol": soup.arm.symbol},
        text=[safe(label or "SFT") for label in soup.labels],
        textposition="bottom center",
        cliponaxis=False,
        hovertext=_hovers(scene, completions, soup),
        hovertemplate="%{hovertext}<extra></extra>",
        name=soup.arm.name,
    )


def _hovers(scene: SoupScene, completions: SplitCompletions | None, soup: Soup) -> list[str]:
    """For each point: which it is, its rewards, and one completion."""
    prompt = shown_prompts(scene.prompts)[0]
    found = []
    for i, candidate in enumerate(soup.candidates):
        lines = [f"{soup.arm.name} {soup.labels[i]}".strip()]
        for k, reward in enumerate(scene.rewards):
            mean = UNITS.mean(interval(soup.mean_SPK[:, i, k], scene.prompts))
            lines.append(f"{reward} {mean.text} {mean.detail}")
        text = None if completions is None else completions.first(candidate, prompt)
        lines += [] if text is None else textwrap.wrap(f"“{cut(text, 200)}”", 60)
        found.append("<br>".join(map(safe, lines)))
    return found
