"""Tasks of lm-evaluation-harness (EleutherAI), scored on the model that a worker holds: source `lm_eval/NAME`."""
