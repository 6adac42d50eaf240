"""Builds a real language setting that needs no hub: a policy, a sentence encoder and a prompt set.

``python -m tasks.embedded.language.build`` makes ``smollm2``, ``minilm`` and ``packages`` in the folder ``language`` of
the cache (:func:`tasks.files.cache.cache_root`); specs name them ``embedded/smollm2`` and so on. ``CARD.md`` of
this package says where they come from.
"""
