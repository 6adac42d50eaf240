"""Fine-tune experts of a vision backbone: `lines finetune`."""
