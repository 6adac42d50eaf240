"""Export a candidate: weights that open_clip, peft or transformers load, the recipe, and a model card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.compute as pc

from pipeline.checkpoints.files import shown_source
from pipeline.checkpoints.writing import write_safetensors
from pipeline.export.hub import card_metadata
from pipeline.export.mergekit import recipe_of
from pipeline.export.rebuilding import coverage_of, described, export_device, rebuild
from pipeline.loading.experts import Expert, load_checkpoints
from pipeline.loading.model import LoadedModel
from pipeline.merging.methods.base import resolve_weights
from pipeline.plan.plan import Plan
from pipeline.records import tables
from pipeline.records.ledger import Ledger
from pipeline.run.run import reopen
from pipeline.run.selection import Candidate, choose
from pipeline.run.walk import judge_all
from pipeline.spec.user_code import announce_code
from tasks.files.atomic import write_whole
from tasks.registry import near
from tasks.vision.clip.backbone import OpenClipBackbone
from tasks.vision.clip.export import open_clip_config, open_clip_state, trunk_folder, vocabulary

#: Family -> the class of transformers that loads an export.
_LOADERS = {
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
    "vision": "AutoModel",
}


@dataclass(frozen=True)
class CandidateChoice:
    """A candidate of a run: the chosen one of an arm and, for an edit, of an expert; or the one at a point.

    Attributes:
        arm: its name in the spec.
        expert: of an edit; "" for a merge.
        point: dimension of the arm's space -> value, for example lambda -> 0.4; {} for the one chosen on validation.
    """

    arm: str
    expert: str = ""
    point: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, arm: str, expert: str = "", point: Mapping[str, object] | None = None) -> "CandidateChoice":
        """Make a choice of values as Python has them; without a point, what was chosen on validation."""
        return cls(arm, expert, {name: str(value) for name, value in (point or {}).items()})


def export(run: Path, choice: CandidateChoice, output: Path) -> Path:
    """Rebuild a candidate, and write it with its recipe and a model card.

    Args:
        run: the run's folder.
        choice: of the candidate.
        output: a new folder.

    Raises:
        ValueError: if there is no such arm or expert, it chose nothing, a checkpoint has changed since the run, or the
            folder exists.
    """
    if output.exists():
        raise ValueError(f"{output}: exists already; give another folder")
    plan, ledger, history = reopen(run)
    announce_code(plan.spec)
    candidate = _chosen(judge_all(plan, ledger, history.proposals), choice)
    model, experts = _same_checkpoints(plan, ledger)
    policy, measured = plan.spec.generation is not None, None
    if not policy:
        measured = _rebuild(plan, ledger, candidate, model, experts)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    facts = _facts(run, plan, ledger, candidate)
    if measured is not None:
        facts["statistics_of_batch_normalisation"] = described(measured)
    if isinstance(model.backbone, OpenClipBackbone):
        beside, coverage = _write_open_clip(partial, model.backbone, candidate), coverage_of(model.backbone, measured)
    else:
        # transformers: not for other exports
        from pipeline.export.policy import write_image_tower, write_language_model, write_policy

        beside = {"library": "transformers", "loader": _LOADERS[model.backbone.family]}
        if policy:
            deltas = {expert.name: expert.delta for expert in experts}
            beside["library"], coverage = write_policy(partial, model, deltas, candidate.recipe)
        elif model.backbone.family == "vision":
            beside["library"], coverage = write_image_tower(partial, model.backbone)
        else:
            coverage = write_language_model(partial, model.backbone)
    beside |= {"statistics": described(measured), "images": model.backbone.family == "vision"}
    facts["coverage"] = [part.to_json() for part in coverage]
    _write_json(partial / "recipe.json", facts)
    used = _used(candidate, list(facts["experts"]))
    about = {"used": used, "kind": candidate.group.kind, "chosen": not choice.point, "loaded": _loaded(plan.spec.base)}
    sources = [plan.spec.base, *(plan.spec.experts[name] for name in used)]
    metadata = card_metadata(output.name, sources, beside["library"], plan.spec.backbone.family, facts["scores"])
    card = _card(facts | beside | about | {"metadata": metadata})
    (partial / "README.md").write_text(card, encoding="utf-8")
    partial.rename(output)
    return output


def export_mergekit(run: Path, choice: CandidateChoice, output: Path) -> Path:
    """Write a candidate as a recipe of mergekit that gives the same tensors.

    Args:
        run: the run's folder.
        choice: of the candidate.
        output: a new .yml or .yaml file.

    Raises:
        ValueError: as `export`, or if there is no such recipe; the message says why.
    """
    if output.exists() or output.suffix not in (".yml", ".yaml"):
        raise ValueError(f"--output: with --mergekit it must be a new .yml or .yaml file, got {output}")
    plan, ledger, history = reopen(run)
    announce_code(plan.spec)
    candidate = _chosen(judge_all(plan, ledger, history.proposals), choice)
    model, _ = _same_checkpoints(plan, ledger)
    score = ledger.any_score(candidate.recipe_id, candidate.group.roles)
    return write_whole(output, recipe_of(plan.spec, ledger.identity, candidate.recipe, score, model))


def _write_open_clip(folder: Path, backbone: OpenClipBackbone, candidate: Candidate) -> dict[str, Any]:
    """Write weights, configuration and vocabulary; return their facts for the card."""
    config, words, trunk = open_clip_config(backbone), vocabulary(backbone), trunk_folder(backbone)
    metadata = {"recipe": candidate.recipe.canonical().decode(), "recipe_id": candidate.recipe_id}
    write_safetensors(folder / "open_clip_model.safetensors", open_clip_state(backbone), metadata)
    _write_json(folder / "open_clip_config.json", config)
    if words:
        shutil.copy(words, folder / words.name)
    if trunk:
        shutil.copytree(trunk, folder / trunk.name)
    return {
        "library": "open_clip",
        "vocabulary": words.name if words else "",
        "trunk": trunk.name if trunk else "",
        "context_length": config["model_cfg"]["text_cfg"].get("context_length", 77),
    }


def _chosen(judged: dict[tuple[str, str], list[Candidate]], choice: CandidateChoice) -> Candidate:
    arms = list(dict.fromkeys(arm for arm, _ in judged))
    if choice.arm not in arms:
        raise ValueError(f"--arm {choice.arm}: not in the run; {near(choice.arm, arms)}")
    groups = [name for arm, name in judged if arm == choice.arm]
    first = next(iter(judged[choice.arm, groups[0]]), None)
    if first is not None and first.group.kind == "seeds":
        raise ValueError(
            f"--arm {choice.arm}: holds {first.group.control_of} with further seeds, of which none was chosen; export "
            f"{first.group.control_of}"
        )
    if choice.expert not in groups:
        what = "is a merge: leave --expert out" if groups == [""] else f"needs --expert; {near(choice.expert, groups)}"
        raise ValueError(f"--arm {choice.arm}: {what}")
    if choice.point:
        return _at_point(judged[choice.arm, choice.expert], choice)
    candidate = choose(judged[choice.arm, choice.expert])
    if candidate is None:
        raise ValueError(f"--arm {choice.arm}: chose nothing: no candidate was scored without a failure")
    return candidate


def _at_point(found: list[Candidate], choice: CandidateChoice) -> Candidate:
    for candidate in found:
        point = candidate.proposal.point
        if point.keys() == choice.point.keys() and all(_same(point[k], v) for k, v in choice.point.items()):
            return candidate
    points = [", ".join(f"{k}={v}" for k, v in c.proposal.point.items()) for c in found]
    asked = ", ".join(f"{k}={v}" for k, v in choice.point.items())
    raise ValueError(f"--point {asked}: was not tried by {choice.arm}; its points: {'; '.join(points[:12])}")


def _same(value: float | int | str, asked: str) -> bool:
    """Compare a value with a number as a user writes it, or with a word."""
    if isinstance(value, str):
        return value.replace(" ", "") == asked.replace(" ", "")
    try:
        return abs(value - float(asked)) < 1e-6
    except ValueError:
        return False


def _same_checkpoints(plan: Plan, ledger: Ledger) -> tuple[LoadedModel, list[Expert]]:
    """Load the base and the experts, and check that the run used the same checkpoints."""
    model, experts = load_checkpoints(plan.spec, export_device(ledger.identity))
    known, same = ledger.identity.checkpoints, []
    if model.fingerprint != known["base"]:
        raise ValueError(f"base: {plan.spec.base}: is {model.fingerprint}, but the run used {known['base']}")
    for expert in experts:
        if expert.fingerprint != known[expert.name]:
            what = f"is {expert.fingerprint}, but the run used {known[expert.name]}"
            raise ValueError(f"experts.{expert.name}: {plan.spec.experts[expert.name]}: {what}")
        same.append(expert)
    return model, same


def _rebuild(
    plan: Plan, ledger: Ledger, candidate: Candidate, model: LoadedModel, experts: Sequence[Expert]
) -> int | None:
    """Give the backbone the candidate's weights: see `rebuild`."""
    backbone = model.backbone
    if not isinstance(backbone, OpenClipBackbone) and backbone.family not in _LOADERS:
        raise ValueError(
            f"backbone.family: {plan.spec.backbone.family}: only open_clip models, towers of family vision and "
            "language models can be exported"
        )
    return rebuild(plan.spec, ledger.identity, candidate.recipe, model, experts)


def _facts(run: Path, plan: Plan, ledger: Ledger, candidate: Candidate) -> dict[str, Any]:
    identity, group = ledger.identity, candidate.group
    score = ledger.any_score(candidate.recipe_id, group.roles)
    return {
        "run": plan.spec.name,
        "arm": group.arm,
        "expert": group.name,
        "recipe_id": candidate.recipe_id,
        "recipe": candidate.recipe.to_json(),
        "alpha": None if score is None else score.alpha,
        "experts": {name: shown_source(source) for name, source in plan.spec.experts.items()},
        "base": shown_source(plan.spec.base),
        "architecture": shown_source(plan.spec.backbone.model),
        "checkpoints": dict(identity.checkpoints),
        "numerics": identity.numerics,
        "scores": _scores(run, candidate),
    }


def _loaded(base: str) -> str:
    """Return the base as the code of a card loads it; a reader puts the path of a local one there."""
    return base.removeprefix("hf:") if base.startswith("hf:") else f"PATH/TO/{Path(base).name}"


def _used(candidate: Candidate, experts: list[str]) -> dict[str, float | int]:
    """Return the weight of each expert that takes part."""
    weights = resolve_weights(candidate.recipe.weights, len(experts))
    return {name: weight for name, weight in zip(experts, weights, strict=True) if weight}


def _scores(run: Path, candidate: Candidate) -> list[dict[str, Any]]:
    table = tables.read(run / "scores.parquet", tables.SCORES)
    mine = pc.equal(table["recipe_id"], candidate.recipe_id)
    mine = pc.and_(mine, pc.and_(pc.equal(table["arm"], candidate.group.arm), pc.equal(table["split"], "test")))
    mine = pc.and_(mine, pc.equal(table["group"], candidate.group.name))
    return list(table.filter(mine).select(["task", "role", "metric", "value", "std_err", "n"]).to_pylist())


def _card(facts: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        # A card is Markdown, which escapes differently from HTML; the spec checks names against a pattern.
        autoescape=False,
    )
    return environment.get_template("model_card.md.j2").render(**facts)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
