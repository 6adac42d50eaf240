"""Proves that a run continues while a node's network is cut for 30 s, uses it again, and ends with the same tables."""

import pytest

from chaos.faults import NetworkLongCut
from chaos.run import check_equal
from chaos.small_run import Survived

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_network_cut_for_half_a_minute_and_healed_costs_nothing(survived: Survived) -> None:
    cut = survived.of(NetworkLongCut)
    assert cut.ended is not None and cut.ended - cut.began >= 30  # the fault itself checks that no packet came through
    assert cut.host_works is not None, "the node was never used again"
    check_equal(survived.run, survived.undisturbed)
