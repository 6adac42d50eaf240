"""Joining a Ray cluster by its address: what is wrong with an address is said within seconds, not after minutes."""

from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

#: Seconds for an address to answer: `ray.init` itself tries for more than two minutes where nothing does.
_ANSWER = 10.0


def join(address: str, options: dict[str, Any]) -> None:
    """`ray.init` on a cluster that is there.

    Raises:
        ConnectionError: no Ray answers at `address`, or it wants another token.
        ValueError: it is no address to join, or the cluster has another Ray or Python.
    """
    if "://" in address:
        raise ValueError(
            f"--address {address}: a run's driver must be on the cluster's network, which Ray Client is not: give "
            "`lines submit SPEC --address http://HOST:8265`, or `lines run SPEC --address auto` on one of its nodes"
        )
    _check_answers(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError) as error:
        raise _none(address, str(error)) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise ValueError(
            f"--address {address}: {str(error).strip()}\nHave the same Python there and here, and the same Ray: "
            "pip install -c constraints.txt -e ."
        ) from error


def _none(address: str, why: str) -> ConnectionError:
    return ConnectionError(
        f"--address {address}: no Ray cluster answers there ({why}); start one by `ray start --head`; if it "
        "asks for a token, put that in ~/.ray/auth_token; or leave --address out to run on this machine"
    )


def _check_answers(address: str) -> None:
    """Ask the cluster whether it is there, with the token that Ray itself would show."""
    try:
        found = services.canonicalize_bootstrap_address(address)
    except (OSError, ValueError) as error:
        raise _none(address, str(error)) from error
    if found is None:
        raise _none(address, "no Ray was started on this machine")
    channel = init_grpc_channel(found, options=[("grpc.enable_http_proxy", 0)])
    try:
        stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_ANSWER)  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise ConnectionError(
                f"--address {address}: the Ray cluster there asks for another token: put its own in ~/.ray/auth_token "
                "on this machine, or in RAY_AUTH_TOKEN"
            ) from error
        raise _none(address, f"{code.name} at {found}: {details}") from error
    finally:
        channel.close()
