"""Proves that `workers: auto` fills a Ray cluster, also with fractions of a GPU."""

import pytest
import ray

from pipeline.cluster.ray_private import stay_on_loopback
from pipeline.cluster.worker_shapes import actor_shape
from pipeline.spec.resources import PerWorker, Resources


@pytest.mark.cluster
def test_workers_fill_the_cluster() -> None:
    stay_on_loopback()
    ray.init(num_cpus=16, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = {
            num_gpus: actor_shape(Resources(per_worker=PerWorker(num_gpus=num_gpus))).workers
            for num_gpus in (1.0, 0.5, 0.3, 0.2, 0.1, 0.0)
        }
        with pytest.raises(ValueError, match="asks for 2 GPUs"):
            actor_shape(Resources(per_worker=PerWorker(num_gpus=2)))
    finally:
        ray.shutdown()
    assert found == {1.0: 1, 0.5: 2, 0.3: 3, 0.2: 5, 0.1: 10, 0.0: 16}
