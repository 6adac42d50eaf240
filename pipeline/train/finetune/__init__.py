"""`lines finetune`: experts of a vision backbone."""
