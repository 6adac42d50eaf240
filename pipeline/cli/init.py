"""The commands `lines init` and `lines demo`: a spec to begin with, and one that runs as it is."""

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import PoolName, Workers
from pipeline.cli.run import run
from pipeline.console import print_result, user_errors
from tasks.files.atomic import write_whole


class Family(StrEnum):
    """Families that `lines init` has a spec for."""

    open_clip = "open_clip"
    causal = "causal"
    seq2seq = "seq2seq"


def init(
    spec: Annotated[Path, typer.Argument(metavar="FILE", help="The new spec.")] = Path("my-sweep.yaml"),
    family: Annotated[Family, typer.Option(help="Of the models.")] = Family.open_clip,
) -> None:
    """Write a commented spec for models of your own, to be edited."""
    with user_errors():
        if spec.exists():
            raise ValueError(f"{spec}: exists already; give another name")
        if not spec.parent.is_dir():
            raise ValueError(f"{spec}: there is no folder {spec.parent}; create it")
        write_whole(spec, _text(family))
        print_result(f"wrote {spec}: put your models and data there, then `lines validate {spec}`")


def demo(
    out: Annotated[str, typer.Option(help="The run's folder, a path or a URL.")] = "runs/demo",
    pool: PoolName = None,
    workers: Workers = None,
) -> None:
    """Run the paper's Table 1 and the top of its Table 2 on the embedded models, in a minute on two cores."""
    spec = Path(str(files("pipeline.cli.specs").joinpath("demo.yaml")))
    run([spec], out=out, address=None, pool=pool, workers=workers, cache=True)


def _text(name: str) -> str:
    return files("pipeline.cli.specs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
