"""Proves that a wrong spec is refused with the field, the rule and the value, and a wrong file by its name."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import toy_spec

from pipeline.plan.plan import make_plan
from pipeline.spec.load import SpecError, load_spec, parse_spec

GOOD = toy_spec().model_dump(mode="json")
CONTINUOUS = {"alpha": {"range": [0, 1]}}
LISTED = {"alpha": {"grid": [0, 1]}}


def changed(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    *parents, key = path.split("/")
    at = data
    for parent in parents:
        at = at[parent]
    at[key] = value
    return data


def merge(**arm: Any) -> dict[str, Any]:
    return {"merge": "sum", **arm}


def power(p: object) -> dict[str, Any]:
    return {"edit": "each_expert", "scaling": {"function": "power", "beta": 1, "params": {"p": p}}}


ALPHA, EDIT, SCALING = "arms/LiNeS/scaling/alpha", "arms/LiNeS/edit", "arms/LiNeS/scaling"
BAD = [
    # keys
    ("limit", 1, "limit: unknown key; did you mean 'limits'?"),
    ("arms/LiNeS/scalling", {}, "arms.LiNeS.scalling: unknown key; did you mean 'scaling' or 'scale'?"),
    ("resources/per_worker/num_gpu", 1, "resources.per_worker.num_gpu: unknown key; did you mean 'num_gpus'"),
    (ALPHA, {"gird": [1]}, "arms.LiNeS.scaling.alpha.gird: unknown key; did you mean 'grid'?"),
    (ALPHA, {}, "arms.LiNeS.scaling.alpha.grid: is required"),
    # names
    ("tasks", ["a/cats", "b/cats"], "tasks: task names must differ, got ['cats'] twice"),
    ("tasks", [{"cats": "x"}], "tasks: a list of tasks must hold names or folders, got {'cats': 'x'}"),
    ("ood", {"cats": "x"}, "ood: names must differ from those of tasks, got ['cats'] in both"),
    (
        "experts",
        {"catz": "x"},
        "experts.catz: its task (or name it in `targets`): unknown task 'catz'; did you mean 'cats'",
    ),
    ("experts/base", "x", "experts.base: this name is taken by the pre-trained checkpoint"),
    ("targets", {"cats": "dog"}, "targets.cats: unknown task 'dog'; did you mean 'dogs'?"),
    ("targets", {"cat": "dogs"}, "targets.cat: unknown expert 'cat'; did you mean 'cats'"),
    (EDIT, "catz", "arms.LiNeS.edit: unknown expert 'catz'; did you mean 'cats'"),
    ("arms/x", merge(experts=["dog"]), "arms.x.experts: unknown expert 'dog'; did you mean 'dogs'?"),
    ("arms/pre-trained", merge(), "arms.pre-trained: this name is taken by the pre-trained model"),
    ("arms/LiNeS, reversed", merge(), "arms.LiNeS, reversed: this name is taken by a control of the arm 'LiNeS'"),
    ("arms/fine-tuned", merge(), "arms.fine-tuned: this name is taken by the unscaled experts"),
    ("name", "a/b", "name: must begin with a letter, digit or _, and hold only these and any of ' .,+()=-', got 'a/b'"),
    ("controls", ["uniforms"], "controls.kinds.0: must be 'uniform', 'equal' or 'reversed', got 'uniforms'"),
    (
        "backbone/precision",
        "int8",
        "backbone.precision: must be 'float32', 'bfloat16' or 'float16', got 'int8'",
    ),
    (f"{SCALING}/function", "liner", "arms.LiNeS.scaling.function: unknown name 'liner'; did you mean 'linear'?"),
    (f"{SCALING}/function", "reversed:linear", "arms.LiNeS.scaling.function: unknown name 'reversed:linear'"),
    ("arms/x", merge(merge="summ"), "arms.x.merge.method: unknown name 'summ'; did you mean 'sum'?"),
    ("arms/x", merge(search={"sampler": "tpee"}), "arms.x.search: sampler: unknown name 'tpee': did you mean 'tpe'?"),
    (
        "select/maximise",
        "targett",
        "select.maximise: objective 'targett': metric: unknown name 'targett': did you mean 'target'",
    ),
    (
        "arms/merge/select",
        {"maximise": ["task['dog']"]},
        "arms.merge.select.maximise: objective \"task['dog']\": task: unknown",
    ),
    # values
    (
        ALPHA,
        {"grid": []},
        "arms.LiNeS.scaling.alpha.grid: must have at least 1 item, got 0",
    ),
    (ALPHA, "auto", "arms.LiNeS.scaling.beta: '1 - alpha' needs a numeric alpha, got alpha: auto"),
    (f"{SCALING}", {"outside": 0.5, "scale": 0.5}, "arms.LiNeS.scaling.scale: interpolates all weights, so it needs"),
    (f"{SCALING}/outside", "beta", "arms.LiNeS.scaling.outside: "),
    (f"{SCALING}/scale", {"grid": [1, -0.5]}, "arms.LiNeS.scaling.scale: must be at least 0, got -0.5"),
    (
        ALPHA,
        "automatic",
        "alpha: must be a number or 'auto' or 'auto_l2', got 'automatic'; did you mean 'auto'?",
    ),
    (
        ALPHA,
        [0, 1],
        "arms.LiNeS.scaling.alpha: must be a number, {grid: [...]} or {range: [lowest, highest]}, got [0, 1]",
    ),
    (ALPHA, {"grid": [0.5, 0.5]}, "arms.LiNeS: alpha: each value may be listed once, got 0.5 more than once"),
    (ALPHA, float("inf"), "arms.LiNeS.scaling.alpha: must be a finite number, got inf"),
    (ALPHA, {"grid": [0, float("nan")]}, "arms.LiNeS.scaling.alpha.grid.1: must be a finite number, got nan"),
    (
        ALPHA,
        {"range": [1, 0]},
        "arms.LiNeS.scaling.alpha.range: the lowest value must be below the highest, got [1.0, 0.0]",
    ),
    (ALPHA, {"range": [0, 1], "log": True}, "arms.LiNeS.scaling.alpha.log: needs a lowest value above 0"),
    (
        f"{SCALING}/beta",
        "1 + alpha",
        "arms.LiNeS.scaling.beta: must be a number, a grid, a range or '1 - alpha', got '1 + alpha'",
    ),
    (
        SCALING,
        {"function": "grouped", "params": {"factors": [0, 1]}},
        "arms.LiNeS.scaling.beta: 0 leaves the factors of grouped without effect; with alpha: 0, set beta: 1",
    ),
    (f"{SCALING}/function", "constant", "arms.LiNeS.scaling.beta: a constant scaling has none"),
    ("arms/x", power({"grid": [-1, 2]}), "arms.x.params.p: must be in (0, inf), got -1.0"),
    ("arms/x", power("two"), "arms.x.params.p: must be a number, got 'two'"),
    ("arms/x", power([1, 2]), "arms.x.params.p: must be a number, got (1.0, 2.0)"),
    ("arms/x", merge(merge={"method": "sum", "params": {"q": 1}}), "arms.x.params: unknown parameter 'q'"),
    (
        "arms/x",
        merge(merge={"method": "sum", "weights": {"cats": 0.5}}),
        "arms.x.merge.weights: method sum: weights select",
    ),
    (
        "arms/x",
        merge(merge={"method": "sum", "weights": {"cats": LISTED["alpha"]}}),
        "arms.x.merge.weights: method sum",
    ),
    ("arms/x", merge(merge="single"), "arms.x.merge.weights: method single: takes one expert, got"),
    (
        "arms/x",
        merge(merge={"method": "weighted", "weights": {"cats": 1}}, experts=["dogs"]),
        "arms.x.merge.weights: unknown",
    ),
    ("arms/x", {}, "arms.x: exactly one of edit and merge must be given"),
    ("arms/x", merge(edit="cats"), "arms.x: exactly one of edit and merge must be given"),
    (EDIT, [], "arms.LiNeS.edit: must have at least 1 item"),
    (EDIT, ["cats", "cats"], "arms.LiNeS.edit: each expert may be named once, got ['cats'] more than once"),
    (EDIT, ["each_expert", "cats"], "arms.LiNeS.edit: each_expert must be the only entry"),
    ("arms/LiNeS/experts", ["cats"], "arms.LiNeS.experts: is for a merge"),
    ("arms", {}, "arms: the spec needs at least one arm, or an arena"),
    ("arms", ["LiNeS"], "arms: must be a mapping, as in {name: value}, got ['LiNeS']"),
    ("shard_size", 0, "shard_size: must be at least 1, got 0"),
    ("limits", {"val": 0}, "limits.val: must be at least 1, got 0"),
    ("limits", {"train": 5}, "limits.train: must be 'val' or 'test', got 'train'"),
    ("resources/workers", "many", "resources.workers: must be a number or 'auto', got 'many'"),
    ("resources/workers", 0, "resources.workers: must be at least 1, got 0"),
    (
        "resources/per_worker/num_gpus",
        -1,
        "resources.per_worker.num_gpus: must be at least 0, got -1",
    ),
    # quotes around numbers
    (ALPHA, "0.5", "alpha: must be a number or 'auto' or 'auto_l2', got '0.5': remove its quotes"),
    (f"{SCALING}/beta", "0.5", "beta: must be a number, a grid, a range or '1 - alpha', got '0.5': remove its quotes"),
    (f"{SCALING}/scale", "2", "scale: must be a number, {grid: [...]} or {range: [lowest, highest]}, got '2': remove"),
    ("arms/x", power("2"), "arms.x.params.p: must be a number, got '2': remove its quotes"),
    ("resources/workers", "4", "resources.workers: must be a number or 'auto', got '4': remove its quotes"),
    ("resources/pool", "locl", "resources.pool: must be 'ray' or 'local', got 'locl'; did you mean 'local'?"),
    # keys and names that look like parts of pydantic's own paths
    ("function-x", 1, "function-x: unknown key; known: arena, arms"),
    ("[key]", 1, "[key]: unknown key"),
    ("<grid>", 1, "<grid>: unknown key"),
    ("experts/<b>", "x", "experts.<b>: must begin with a letter, digit or _, and hold only these and any of ' .,"),
    ("name", "n" * 201, "name: must have at most 200 bytes, as it names files, got 201"),
    ("tasks", {"é" * 101: "x"}, "must have at most 200 bytes, as it names files, got 202"),
    # numbers that would fill the memory, or take for ever
    ("controls", {"kinds": ["uniform"], "constants": 10**12}, "controls.constants: must be at most 10000, got 10000"),
    (ALPHA, {"range": [0, 1], "step": 1e-12}, "alpha: at most 1,000,000,000 steps, got 1e+12"),
    (ALPHA, {"range": [0, 1], "step": 1e-7}, "alpha: a grid has at most 1,000,000 values, got 10,000,001"),
    (ALPHA, {"range": [-1e308, 1e308], "step": 1}, "alpha.range.0: must be at least -1e+100, got -1e+308"),
    (ALPHA, {"grid": [0, 10**400, "...", 1]}, "alpha.grid: '...': must be between numbers of at most 1e+100, got"),
    (ALPHA, {"grid": [0, 1e-9, "...", 1]}, "alpha.grid: '...': at most 10,000 values"),
    ("arms/merge/search/stop", "exct", "arms.merge.search.stop: must be 'auto', 'exact' or 'none', got 'exct'; did"),
    ("arms/merge/search/stop", {"race": 2}, "arms.merge.search.stop.race: must be less than 1, got 2"),
    ("arms/merge/search/trials", 10**9, "arms.merge.search.trials: must be at most 1000000, got 1000000000"),
    ("arms/merge/search/in_flight", 10**9, "arms.merge.search.in_flight: must be at most 10000, got 1000000000"),
    ("limits", {"val": 10**30}, "limits.val: must be at most 1000000000, got 10000000000"),
    ("resources/workers", 10**9, "resources.workers: must be at most 100000, got 1000000000"),
    # searches that cannot be
    (
        "arms/x",
        merge(scaling=CONTINUOUS, search={"sampler": "grid"}),
        "arms.x.search: alpha: a grid needs a step: [0.0, 1.0] is continuous",
    ),
    (
        "arms/x",
        merge(scaling=LISTED, search={"trials": 3}),
        "arms.x.search: trials: a grid proposes every point once, got 3",
    ),
    (
        "arms/x",
        merge(scaling=CONTINUOUS, search={"sampler": "tpe"}),
        "arms.x.search: trials: sampler tpe needs a number",
    ),
    (
        "arms/x",
        merge(search={"sampler": "tpe", "trials": 20}),
        "arms.x.search: sampler tpe: the space has no dimensions",
    ),
    (
        "arms/x",
        merge(scaling=LISTED, search={"sampler": "cmaes", "trials": 9}),
        "arms.x.search: sampler cmaes: numeric ranges only, but ['alpha'] list their values",
    ),
    (
        "arms/x",
        merge(scaling=CONTINUOUS, search={"sampler": "cmaes", "trials": 9}, select={"maximise": ["target", "control"]}),
        "arms.x.search: sampler cmaes: one objective only, got 2: for several use grid, random",
    ),
    (
        "arms/merge/search/options",
        {"startup_trial": 2},
        "arms.merge.search: sampler tpe: option: unknown name 'startup_trial': did you mean 'startup_trials'",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{p}={v}"[:60] for p, v, _ in BAD])
def test_a_wrong_spec_is_refused_with_field_rule_and_value(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_plan(parse_spec(changed(path, value)))


def test_all_errors_are_reported_at_once_each_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "shard_size": 0, "limit": 3, "base": None}))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert [line.removeprefix(f"{path}: ").split(":")[0] for line in lines] == ["base", "shard_size", "limit"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must be a mapping with name, backbone, base"),
        (b"", "must be a mapping"),
        (b"name: [\n", "not valid YAML"),
        (b"name: a\nname: b\n", "duplicate key 'name'"),
        (b"arms: {x: 1, x: 2}\n", "duplicate key 'x'"),
        (b"? [a, b]\n: 1\n", "not valid YAML: a list or mapping as key: a key is text"),
        (b"name: \xff\xfe\n", "must be text in UTF-8"),
        (b"name: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_spec_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=rf"bad\.yaml: .*{message}"):
        load_spec(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing\.yaml: cannot be read: No such file"):
        load_spec(tmp_path / "nothing.yaml")
