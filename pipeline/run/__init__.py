"""The loop: propose, evaluate, choose on validation, confirm on test, write tables."""
