"""Tasks of encoders: texts classified by frozen prompts, or by the head of a fine-tuned classifier."""
