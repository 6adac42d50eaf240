"""Train checkpoints: `lines finetune` and `lines ppo`. A search never imports this package."""
