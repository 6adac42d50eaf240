"""SFT and PPO: models from `lines ppo`."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported: it warns that it is
