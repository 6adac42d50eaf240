"""The commands that execute specs. Imports nothing heavy: `lines --help` reads it."""

from typing import Literal

Command = Literal["run", "finetune", "ppo"]
