"""Fine-tune experts of a vision or language model: `lines finetune`."""
