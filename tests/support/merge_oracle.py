"""`lines merge` on the oracle's checkpoints."""

from pathlib import Path

from merge_command import app
from typer.testing import CliRunner

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
EXPERTS = [str(ORACLE / f"finetuned_{i}.safetensors") for i in range(3)]
BASE = str(ORACLE / "base.safetensors")


def arguments(out: Path, *options: str, base: str = BASE, experts: list[str] = EXPERTS) -> list[str]:
    """Return the words of the command."""
    named = [part for expert in experts for part in ("--expert", expert)]
    return ["--base", base, *named, "-o", str(out), *options]


def run(out: Path, *options: str, base: str = BASE, experts: list[str] = EXPERTS) -> str:
    """Merge, and return what is printed."""
    result = CliRunner().invoke(app, arguments(out, *options, base=base, experts=experts))
    assert result.exit_code == 0, result.output
    return result.output


def refuses(out: Path, message: str, *options: str, base: str = BASE, experts: list[str] = EXPERTS) -> None:
    """Check that the command ends with this message and writes nothing."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    result = CliRunner().invoke(app, arguments(out, *options, base=base, experts=experts))
    assert result.exit_code == 2
    assert message in result.output
    assert before == (sorted(out.parent.iterdir()) if out.parent.is_dir() else [])
