"""The measured weights as rows of the Parquet tables and of the JSON."""

import math
from collections.abc import Iterator

import pyarrow as pa

from pipeline.inspection.weights import Array, Weights
from pipeline.records.gate import Gate

#: The whole model, and the parameters outside the blocks; a block is named by its number from 1.
WHOLE, OUTSIDE = "all", "outside"

#: One row for each expert and part of the model.
EXPERTS = pa.schema(
    [
        pa.field("expert", pa.string(), False),
        pa.field("part", pa.string(), False),  # all, outside, or the block's number from 1
        pa.field("norm", pa.float64(), False),  # L2, of the task vector
        pa.field("relative", pa.float64()),  # divided by the norm of the base; null if that is 0
        pa.field("energy", pa.float64()),  # mean share of the squared norm in the leading subspace of each matrix
    ]
)

#: One row for each pair of experts and part of the model.
PAIRS = pa.schema(
    [
        pa.field("expert", pa.string(), False),
        pa.field("other", pa.string(), False),
        pa.field("part", pa.string(), False),
        pa.field("cosine", pa.float64()),  # null where one of the task vectors is 0
        pa.field("sign_conflicts", pa.float64()),  # share of the entries that both change; null if there are none
        pa.field("overlap", pa.float64()),  # of leading singular subspaces; null if the part has no large matrix
        pa.field("chance", pa.float64()),  # the overlap of random subspaces
    ]
)

#: One row for each edit or merge, role, and third that is left out.
GATE = pa.schema(
    [
        pa.field("kind", pa.string(), False),  # edit or merge
        pa.field("name", pa.string(), False),  # the expert, or the arm
        pa.field("role", pa.string(), False),  # target or control, with "(bits per byte)" where lower is better
        pa.field("left_out", pa.string(), False),  # first, middle or last third; "" for the whole edit
        # what is lost without it; of the whole edit, what it gains over the base: positive is better, in any metric
        pa.field("value", pa.float64(), False),
        pa.field("low", pa.float64(), False),  # of the 95% interval
        pa.field("high", pa.float64(), False),
        pa.field("n", pa.int64(), False),  # validation samples
    ]
)


def parts(weights: Weights) -> Iterator[tuple[str, slice]]:
    """Yield the name and the groups of each part: the whole model, outside the blocks, each block."""
    yield WHOLE, slice(None)
    yield OUTSIDE, slice(0, 1)
    yield from ((str(block), slice(block, block + 1)) for block in range(1, weights.num_blocks + 1))


def expert_rows(weights: Weights) -> list[dict[str, object]]:
    """Return the rows of `EXPERTS`."""
    rows: list[dict[str, object]] = []
    for part, groups in parts(weights):
        norms, relative = weights.norm(groups), weights.relative(groups)
        energy = weights.mean_energy(groups)
        rows += [
            {"expert": e, "part": part, "norm": float(norms[i]), **_known(i, relative=relative, energy=energy)}
            for i, e in enumerate(weights.experts)
        ]
    return rows


def pair_rows(weights: Weights) -> list[dict[str, object]]:
    """Return the rows of `PAIRS`."""
    rows: list[dict[str, object]] = []
    for part, groups in parts(weights):
        found = {"cosine": weights.cosines(groups), "sign_conflicts": weights.sign_conflicts(groups)}
        found["overlap"] = weights.overlaps(groups)
        chance = number(weights.mean_chance(groups))
        for a, b in weights.pairs:
            names = {"expert": weights.experts[a], "other": weights.experts[b], "part": part}
            rows.append({**names, **_known((a, b), **found), "chance": chance})
    return rows


def gate_rows(gate: Gate) -> list[dict[str, object]]:
    """Return the rows of `GATE`."""
    rows: list[dict[str, object]] = []
    for edit in gate.edits:
        for role, losses in edit.roles.items():
            for third, found in {"": losses.gain, **losses.cost}.items():
                about = {"kind": edit.kind, "name": edit.name, "role": role, "left_out": third}
                rows.append({**about, "value": found.value, "low": found.low, "high": found.high, "n": found.n})
    return rows


def _known(place: int | tuple[int, int], **values: Array) -> dict[str, float | None]:
    return {name: number(float(array[place])) for name, array in values.items()}


def number(value: float) -> float | None:
    """Return a value; None if it is NaN."""
    return None if math.isnan(value) else value
