"""Train an SFT model and policies by PPO, RLOO or GRPO: `lines ppo`."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported: it warns that it is
