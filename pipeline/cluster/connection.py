"""Ray as a run uses it: started or joined when it is first needed."""

from contextlib import ExitStack

from pipeline.spec.resources import Resources
from tasks.cores import permitted_cores


class Connection:
    """Starts or joins Ray when it is first needed, once."""

    def __init__(self, stack: ExitStack, address: str | None) -> None:
        """Take what ends Ray, and the address of a cluster; None to start Ray on this machine."""
        self._stack, self._address = stack, address
        self._open = False

    @property
    def joined(self) -> bool:
        """Whether Ray is a cluster that is joined, whose nodes may not see this disk."""
        return self._address is not None

    def open(self) -> None:
        """Start or join Ray unless that is done.

        Raises:
            ValueError: if the cluster's nodes have other versions.
            ConnectionError: if no Ray answers at the address.
        """
        if self._open:
            return
        from pipeline.cluster.session import local_ray  # Ray: not for a run whose scores are all known

        self._stack.enter_context(local_ray(address=self._address))
        if self._address is not None:
            from pipeline.cluster.preflight import check_nodes

            check_nodes(self._address)
        self._open = True

    def device_type(self, resources: Resources) -> str:
        """Return the device type of the workers: "cuda" if each has a GPU or a part of one.

        It is known before Ray is started if a worker fits on this machine, and this has no GPU.

        Raises:
            ValueError: if no node can run a worker.
        """
        if self._open and resources.pool == "ray" and not self._has_gpus(resources):
            return "cpu"
        import torch

        here = "cuda" if torch.cuda.is_available() else "cpu"
        if resources.pool == "local":
            return here
        worker = resources.per_worker
        fits = worker.num_gpus in ("auto", 0) and worker.num_cpus <= permitted_cores().permitted
        if not self.joined and here == "cpu" and fits:
            return here
        self.open()
        return "cuda" if self._has_gpus(resources) else "cpu"

    def _has_gpus(self, resources: Resources) -> bool:
        from pipeline.cluster.worker_shapes import actor_shape

        return bool(actor_shape(resources).num_gpus)
