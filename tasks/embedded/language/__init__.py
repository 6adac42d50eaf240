"""Builds a policy, a sentence encoder and a prompt set without the hub.

``python -m tasks.embedded.language.build`` writes ``smollm2``, ``minilm`` and ``packages`` into the folder ``language``
of the cache (:func:`tasks.files.cache.cache_root`); specs name them ``embedded/smollm2`` and so on. The models are read
from installed packages; ``python -m tasks.embedded.bases.build`` makes the same of packages that it fetches by their
hashes. ``CARD.md`` has their sources.
"""

#: Models and prompts that can be built.
BUILT = ("minilm", "packages", "smollm2")
