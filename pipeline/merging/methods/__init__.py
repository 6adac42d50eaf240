"""Merge methods: from the experts' task vectors to one combined vector, before any scaling.

A method never sees alpha, beta or the scaling function, so a combined vector serves every scaling of it.
"""

from pipeline.merging.methods import (
    consensus,
    emr,
    geometric,
    knots,
    learned,
    linear,
    one_expert,
    pcb,
    sce,
    sparse,
    spectral,
    spherical,
    statistical,
    ties,
    wudi,
)
from pipeline.merging.methods.base import Method
from pipeline.parameters import look_up

METHODS: dict[str, Method] = {
    "zero": linear.ZERO,
    "single": linear.SINGLE,
    "sum": linear.SUM,
    "average": linear.AVERAGE,
    "weighted": linear.WEIGHTED,
    "ties": ties.TIES,
    "consensus": consensus.CONSENSUS,
    "tall_mask": consensus.TALL_MASK,
    "emr": emr.EMR,
    "pcb": pcb.PCB,
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
    "sce": sce.SCE,
    "nearswap": one_expert.NEARSWAP,
    "arcee_fusion": one_expert.ARCEE_FUSION,
    "fisher": statistical.FISHER,
    "regmean": statistical.REGMEAN,
    "regmean_pp": statistical.REGMEAN_PP,
    "tsvm": spectral.TSVM,
    "iso_c": spectral.ISO_C,
    "iso_cts": spectral.ISO_CTS,
    "wudi": wudi.WUDI,
    "knots": knots.KNOTS,
    "adamerging": learned.ADAMERGING,
    "atlas": learned.ATLAS,
}

#: mergekit's name of a method -> ours.
_MERGEKIT = {
    "linear": "weighted with aggregate mean",
    "task_arithmetic": "weighted",
    "dare_linear": "dare with rescale l1",
}


def look_up_method(name: str, field: str) -> Method:
    """Return the method called `name`; `field` names it.

    Raises:
        ValueError: if there is no such method; the message suggests near names, or ours for a name of mergekit.
    """
    if name in _MERGEKIT:
        raise ValueError(f"{field}: {name!r} is mergekit's name of what is {_MERGEKIT[name]} here")
    return look_up(METHODS, name, field)
