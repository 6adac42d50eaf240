"""The family `vision`: image towers without a text tower, whose heads are fitted to training images."""
