"""Train an SFT model and policies by PPO, RLOO or GRPO: `lines ppo`."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported: it warns that it is
# trl imports MLflow, where it is installed, unless transformers is asked not to use it: seconds, for nothing used here.
os.environ.setdefault("DISABLE_MLFLOW_INTEGRATION", "TRUE")
