"""Export a candidate's weights as files with a model card."""
