"""The run's tables: versioned Arrow schemas, written to Parquet; read without torch and Ray.

Example:
    >>> from pathlib import Path
    >>> from pipeline.records import tables
    >>> candidates = tables.read(Path("runs/demo/candidates.parquet"), tables.CANDIDATES)
    >>> candidates.filter(candidates["chosen"]).select(["arm", "group", "alpha", "beta"]).to_pylist()[0]
    {'arm': 'pre-trained', 'group': '', 'alpha': 0.0, 'beta': 0.0}
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.files.atomic import whole_file
from tasks.files.columns import column

#: Increased whenever a column changes its name, type or meaning; a golden test holds the schemas of each version.
SCHEMA_VERSION = 2
#: Rows converted at a time: as dictionaries they take ten times the memory.
_BATCH = 1000
_METADATA = {b"lines_sweep.schema_version": str(SCHEMA_VERSION).encode()}

#: One row for each candidate of each arm and group, in the order they were proposed.
CANDIDATES = pa.schema(
    [
        pa.field("arm", pa.string(), False),  # the arm's name in the spec; controls carry their own: "LiNeS, reversed"
        # pre-trained, edit, merge, mask (of an expert, for a consensus merge), or seeds (of the choice of a merge)
        pa.field("kind", pa.string(), False),
        pa.field("group", pa.string(), False),  # an edit's expert; "" for a merge and for the pre-trained model
        pa.field("number", pa.int32(), False),  # order within (arm, group)
        pa.field("recipe_id", pa.string(), False),
        pa.field("method", pa.string(), False),
        pa.field("scaling", pa.string(), False),
        pa.field("alpha", pa.float64()),  # a number, also with equation 2; null if nothing was evaluated
        pa.field("alpha_auto", pa.bool_(), False),  # whether alpha came from equation 2
        pa.field("beta", pa.float64(), False),
        pa.field("weights", pa.list_(pa.float64()), False),
        pa.field("params", pa.string(), False),  # JSON object; steps after the merge are its "then"
        pa.field("point", pa.string(), False),  # JSON object: the searched dimensions, by name
        pa.field("control_of", pa.string(), False),  # the LiNeS arm that this one controls, or ""
        # "", uniform (equal mean), equal_norm, constant (tuned), reversed (tuned) or seeds
        pa.field("control", pa.string(), False),
        pa.field("state", pa.string(), False),  # complete, failed or stopped
        pa.field("failure", pa.string(), False),  # the first cause, or ""
        pa.field(
            "objectives", pa.list_(pa.float64())
        ),  # on validation, in provenance.json's order; null if failed or stopped
        pa.field("on_front", pa.bool_(), False),  # not dominated within (arm, group) on validation
        pa.field("chosen", pa.bool_(), False),  # picked by the validation objective in (arm, group)
        # JSON object of a method that learns from data: seconds, peak_bytes, coefficients; "" for others
        pa.field("note", pa.string(), False),
    ],
    metadata=_METADATA,
)

#: One row for each candidate that was stopped before all its samples were scored; no file if there is none.
STOPPED = pa.schema(
    [
        pa.field("arm", pa.string(), False),
        pa.field("group", pa.string(), False),
        pa.field("number", pa.int32(), False),
        pa.field("recipe_id", pa.string(), False),
        pa.field(
            "rule", pa.string(), False
        ),  # exact: it could not win any more; race: a paired test says that it loses
        pa.field("incumbent", pa.int32(), False),  # number of the better candidate, which is scored in full
        pa.field("stage", pa.int32(), False),  # stages that were scored; the hardest samples come first
        pa.field("seen", pa.int64(), False),  # samples that were scored, of all tasks
        pa.field("samples", pa.int64(), False),  # samples that scoring in full takes
        # the objectives if all else were right, which they cannot exceed: no scores
        pa.field("bounds", pa.list_(pa.float64()), False),
        # what the sampler receives. It takes the unseen samples as the first candidates had them; it is not a score
        pa.field("estimate", pa.list_(pa.float64()), False),
    ],
    metadata=_METADATA,
)

#: One row for each candidate, task and split that was scored in full.
SCORES = pa.schema(
    [
        pa.field("arm", pa.string(), False),
        pa.field("group", pa.string(), False),
        pa.field("number", pa.int32(), False),
        pa.field("recipe_id", pa.string(), False),
        pa.field("task", pa.string(), False),
        pa.field("split", pa.string(), False),  # val or test
        pa.field("role", pa.string(), False),  # target, control or ood, for this arm and group
        pa.field("metric", pa.string(), False),
        pa.field("value", pa.float64(), False),  # mean outcome: for accuracy a fraction; of a ratio, the ratio
        pa.field("std_err", pa.float64(), False),
        pa.field("n", pa.int64(), False),
        # value / reference: the task's expert for a target, the pre-trained model for a control or OOD set; of bits per
        # byte reference / value; null if the reference is missing or 0
        pa.field("normalised", pa.float64()),
    ],
    metadata=_METADATA,
)

#: One file a task, one row for each recipe and split: the paired outcomes that intervals and tests need.
SAMPLES = pa.schema(
    [
        pa.field("recipe_id", pa.string(), False),
        pa.field("split", pa.string(), False),
        pa.field("outcomes", pa.list_(pa.float32()), False),  # in the data set's order; 0 or 1 for accuracy
    ],
    metadata=_METADATA,
)

#: Tasks that rank choices, one file a task, in the rows and the order of SAMPLES.
MARGINS = pa.schema(
    [
        pa.field("recipe_id", pa.string(), False),
        pa.field("split", pa.string(), False),
        # the best wrong choice's log-likelihood or logit minus the right one's, in nats (of prompts of an encoder:
        # cosines times 30); below 0 if the sample is right
        pa.field("margins", pa.list_(pa.float32()), False),
    ],
    metadata=_METADATA,
)

#: Tasks whose value is a ratio of sums, such as bits over bytes: one file a task, one row a split.
SIZES = pa.schema(
    [
        pa.field("split", pa.string(), False),
        # the denominator's part of each sample, such as its bytes, in the order of SAMPLES; the outcomes there are the
        # numerator's parts over the mean size, so that their mean is the ratio
        pa.field("sizes", pa.list_(pa.int64()), False),
    ],
    metadata=_METADATA,
)

#: Runs whose tasks are rewards: the scored completions, one row an outcome, in the order of SAMPLES.
COMPLETIONS = pa.schema(
    [
        pa.field("recipe_id", pa.string(), False),
        pa.field("split", pa.string(), False),
        pa.field("index", pa.int32(), False),  # outcome: prompt times samples a prompt, plus the sample
        pa.field("prompt", pa.string(), False),  # with its template filled in
        pa.field("reference", pa.string(), False),  # written by a person, or ""
        pa.field("completion", pa.string(), False),
    ],
    metadata=_METADATA,
)

#: The same runs: the prompts, kept with the journal so that tables can be rebuilt anywhere.
PROMPTS = pa.schema(
    [
        pa.field("split", pa.string(), False),
        pa.field("index", pa.int32(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("source", pa.string(), False),  # the part that rewards compare with
        pa.field("reference", pa.string(), False),
    ],
    metadata=_METADATA,
)


def write(path: Path, rows: Iterable[dict[str, object]], schema: pa.Schema) -> None:
    """Write `rows` as Parquet (zstd) in one step, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left, parts = iter(rows), [_table([], schema)]
    while batch := list(islice(left, _BATCH)):
        parts.append(_table(batch, schema))
    with whole_file(path) as partial:
        pq.write_table(pa.concat_tables(parts), partial, compression="zstd", write_page_checksum=True)


def _table(rows: Sequence[dict[str, object]], schema: pa.Schema) -> pa.Table:
    columns = [column([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one of the tables.

    Raises:
        ValueError: if the file is damaged, or has another schema version.
    """
    hint = "`lines report RUN` writes the tables of a run again from its journal, `lines run` its prompts"
    table = read_parquet(path, hint)
    version = (table.schema.metadata or {}).get(b"lines_sweep.schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise ValueError(f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}: run `lines report`")
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}; {hint}") from error


def read_parquet(path: Path, hint: str = "restore it, or make it again") -> pa.Table:
    """Read a file that `write` has written; each page is compared with its checksum (older versions wrote none).

    Args:
        path: the file.
        hint: the end of the error: what to do.

    Raises:
        ValueError: if it is damaged.
        FileNotFoundError: if there is none.
    """
    try:
        # `pq.read_table` would import Arrow's data sets, and these pandas.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or not a Parquet file: {error}; {hint}") from error
