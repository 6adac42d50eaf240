"""Merge methods: from the experts' task vectors to one combined vector, before any scaling.

A method never sees alpha, beta or the scaling function, so a combined vector serves every scaling of it.
"""

from pipeline.merging.methods import (
    consensus,
    geometric,
    learned,
    linear,
    sparse,
    spectral,
    spherical,
    statistical,
    ties,
)
from pipeline.merging.methods.base import Method

METHODS: dict[str, Method] = {
    "zero": linear.ZERO,
    "single": linear.SINGLE,
    "sum": linear.SUM,
    "average": linear.AVERAGE,
    "weighted": linear.WEIGHTED,
    "ties": ties.TIES,
    "consensus": consensus.CONSENSUS,
    "tall_mask": consensus.TALL_MASK,
    "magnitude": sparse.MAGNITUDE,
    "dare": sparse.DARE,
    "dare_ties": sparse.DARE_TIES,
    "della": sparse.DELLA,
    "della_linear": sparse.DELLA_LINEAR,
    "breadcrumbs": sparse.BREADCRUMBS,
    "breadcrumbs_ties": sparse.BREADCRUMBS_TIES,
    "model_stock": geometric.MODEL_STOCK,
    "slerp": geometric.SLERP,
    "nuslerp": spherical.NUSLERP,
    "multislerp": spherical.MULTISLERP,
    "karcher": spherical.KARCHER,
    "fisher": statistical.FISHER,
    "regmean": statistical.REGMEAN,
    "tsvm": spectral.TSVM,
    "iso_c": spectral.ISO_C,
    "adamerging": learned.ADAMERGING,
    "atlas": learned.ATLAS,
}
