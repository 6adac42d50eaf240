"""Proves that `lines merge` reads statistics from files, one for each expert, and refuses those that do not fit."""

import json
from pathlib import Path

import torch
from merge_oracle import BASE, EXPERTS, refuses, run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.checkpoints.checkpoint import fingerprint
from pipeline.checkpoints.statistics import origin


def statistics_of(folder: Path, kind: str) -> list[str]:
    """Write one file an expert: ones for the first, zeros for the second, threes for the third."""
    paths = []
    for expert, weight in enumerate((1.0, 0.0, 3.0)):
        fisher = {name: torch.full_like(tensor, weight) for name, tensor in load_file(BASE).items()}
        gram = {n: weight * torch.eye(t.shape[1]) for n, t in fisher.items() if n.endswith("c_fc.weight")}
        paths.append(str(folder / f"{kind}{expert}.safetensors"))
        save_file({"fisher": fisher, "gram": gram}[kind], paths[-1])
    return [f"--statistics={path}" for path in paths]


def test_fisher_and_regmean_read_statistics_from_files(tmp_path: Path) -> None:
    base, experts = load_file(BASE), [load_file(e) for e in EXPERTS]
    for method, kind in (("fisher", "fisher"), ("regmean", "gram")):
        out = tmp_path / f"{method}.safetensors"
        run(out, f"--method={method}", *statistics_of(tmp_path, kind), "--scaling=constant", "--alpha=1")
        merged = load_file(out)
        for name in base:
            expected = sum(e[name] for e in experts) / 3
            if method == "fisher" or name.endswith("c_fc.weight"):
                expected = (experts[0][name] + 3 * experts[2][name]) / 4
            assert torch.allclose(merged[name], expected, atol=1e-6), name


def test_statistics_belong_to_an_expert(tmp_path: Path) -> None:
    """Files of `lines statistics` in another order or of another kind are refused; the used ones are recorded."""
    plain = [option.removeprefix("--statistics=") for option in statistics_of(tmp_path, "fisher")]
    for source, expert in zip(plain, EXPERTS, strict=True):
        save_file(load_file(source), source, origin("fisher", fingerprint(load_file(expert)), 32))
    given = [f"--statistics={source}" for source in plain]
    out = tmp_path / "out.safetensors"
    run(out, "--method=fisher", *given)
    with safe_open(out, "pt") as file:
        recorded = json.loads(file.metadata()["lines_sweep.statistics"])
    assert recorded == [fingerprint(load_file(source)) for source in plain]
    out = tmp_path / "other.safetensors"
    refuses(out, "fisher1.safetensors: is of another expert", "--method=fisher", given[1], given[0], given[2])
    refuses(out, "must be of kind gram, got fisher", "--method=regmean", *given)
    refuses(out, "--param samples: is an option of `lines statistics`", "--method=fisher", "--param=samples=64", *given)


def test_statistics_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    fisher, gram = statistics_of(tmp_path, "fisher"), statistics_of(tmp_path, "gram")
    out = tmp_path / "out.safetensors"
    how = "one file for each of 3 experts, in their order, got 0; `lines statistics SPEC --kind fisher` makes them"
    refuses(out, how, "--method=fisher")
    refuses(out, "got 2", "--method=regmean", *gram[:2])
    refuses(out, "the method sum needs none", *fisher)
    refuses(out, "has nothing for model.logit_scale", "--method=fisher", *gram)
    refuses(out, "must be (inputs, inputs)", "--method=regmean", *fisher)
    refuses(out, "must be a .safetensors file that exists, got no.pt", "--method=fisher", *["--statistics=no.pt"] * 3)
    refuses(out, "learns from data: put it in a spec", "--method=adamerging")
    other = str(tmp_path / "other.safetensors")
    save_file({"visual.proj": torch.eye(6)}, other)
    refuses(out, "visual.proj in", "--method=regmean", *[f"--statistics={other}"] * 3)
    save_file({n: -torch.ones_like(t) for n, t in load_file(BASE).items()}, other)
    refuses(out, "not negative", "--method=fisher", *[f"--statistics={other}"] * 3)
