"""The schema of training.parquet, which has one row for each update of a policy. Imports no torch."""

import pyarrow as pa

TRAINING_FILE = "training.parquet"
TRAINING = pa.schema(
    [
        pa.field("step", pa.int64(), False),  # updates done
        pa.field("episodes", pa.int64(), False),  # completions learned from so far
        pa.field("reward", pa.float64(), False),  # mean of the raw reward over the update's completions
        pa.field("reward_std", pa.float64(), False),  # of the same
        pa.field("kl", pa.float64(), False),  # nats a completion, against the SFT model, on the same completions
        pa.field("kl_coef", pa.float64(), False),  # price of a nat in this update
        pa.field("entropy", pa.float64(), False),  # nats a token
        pa.field("length", pa.float64(), False),  # mean tokens of a completion, its end-of-sequence token included
        pa.field("eos", pa.float64(), False),  # fraction of the completions with an end-of-sequence token
        pa.field("seconds", pa.float64(), False),  # duration of the update
    ]
)
