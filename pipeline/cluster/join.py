"""Join a Ray cluster by its address; a wrong address is reported within seconds, not minutes."""

from typing import Any

import grpc  # type: ignore[import-untyped]
import ray

from pipeline.cluster.ray_private import check_alive, resolve_address

#: Seconds for an address to answer.
_ANSWER = 10.0


def join(address: str, options: dict[str, Any]) -> None:
    """Call `ray.init` on a cluster that answers.

    Raises:
        ConnectionError: if no Ray answers at `address`, or it requires another token.
        ValueError: if it is not an address to join, or the cluster has another version of Ray or Python.
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
        raise _no_cluster(address, str(error)) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise ValueError(
            f"--address {address}: {str(error).strip()}\nInstall the same Python there and here, and the same Ray: "
            "pip install -c constraints.txt -e ."
        ) from error


def _no_cluster(address: str, why: str) -> ConnectionError:
    return ConnectionError(
        f"--address {address}: no Ray cluster answers there ({why}); start one by `ray start --head`; if it "
        "requires a token, put that in ~/.ray/auth_token; or leave --address out to run on this machine"
    )


def _check_answers(address: str) -> None:
    try:
        resolved = resolve_address(address)
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from error
    if resolved is None:
        raise _no_cluster(address, "no Ray was started on this machine")
    try:
        check_alive(resolved, _ANSWER)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise ConnectionError(
                f"--address {address}: the Ray cluster there asks for another token: put its own in ~/.ray/auth_token "
                "on this machine, or in RAY_AUTH_TOKEN"
            ) from error
        raise _no_cluster(address, f"{code.name} at {resolved}: {details}") from error
