"""The page of a training: curves of `lines finetune` and `lines ppo`."""
