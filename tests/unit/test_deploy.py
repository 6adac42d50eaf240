"""Proves that the files that start clusters are valid for Ray and Kubernetes, pin versions and hold no secret."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCHED = ("cluster.yaml", "deploy/gcp.yaml", "deploy/azure.yaml", "deploy/on-premise.yaml")
CLOUDS = LAUNCHED[:3]
#: What KubeRay knows, of what we use, from its API's reference.
RAY_JOB = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "entrypoint",
    "rayClusterSpec",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
}
RAY_CLUSTER = {
    "authOptions",
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "headGroupSpec",
    "rayVersion",
    "workerGroupSpecs",
}
WORKER_GROUP = {"groupName", "maxReplicas", "minReplicas", "rayStartParams", "replicas", "template"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8")))


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(params=LAUNCHED)
def launched(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Read the file as `ray up` does, with Ray's checks."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(documents(request.param)[0])
    validate_config(config)
    return config


def test_ray_takes_the_cluster_and_every_node_has_its_token_and_the_constraints(launched: dict[str, Any]) -> None:
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (launched["head_setup_commands"], launched["worker_setup_commands"]):
        installs = [c for c in commands if "pip install" in c and "lines-sweep" in c]
        assert installs and all("-c constraints.txt" in c for c in installs)
    for commands in (launched["head_start_ray_commands"], launched["worker_start_ray_commands"]):
        assert commands[0] == "ray stop" and len(commands) == 2
        assert commands[1].startswith("export RAY_AUTH_MODE=token;")
    assert "--dashboard-host=127.0.0.1" in launched["head_start_ray_commands"][1]


def test_what_the_ray_start_of_each_command_line_is_given_exists(launched: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for command in (launched["head_start_ray_commands"][1], launched["worker_start_ray_commands"][1]):
        words = shlex.split(command.rpartition("ray start")[2])
        assert words and {word.partition("=")[0] for word in words} <= known


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_has_a_head_that_evaluates_nothing_and_gpus_on_spot_instances(name: str) -> None:
    (config,) = documents(name)
    types = config["available_node_types"]
    assert config["head_node_type"] == "head" and types["head"]["resources"] == {"CPU": 0}
    worker = types["gpu_worker"]
    assert worker["resources"]["GPU"] == 1 and worker["max_workers"] <= config["max_workers"]
    spot = {
        "aws": lambda node: node["InstanceMarketOptions"]["MarketType"] == "spot",
        "gcp": lambda node: {"preemptible": True} in node["scheduling"],
        "azure": lambda node: node["azure_arm_parameters"]["priority"] == "Spot",
    }
    assert spot[config["provider"]["type"]](worker["node_config"])
    assert config["docker"]["image"] == f"rayproject/ray:{pinned('ray')}-py311"
    assert config["idle_timeout_minutes"] <= 30


def ray_job() -> dict[str, Any]:
    (job,) = documents("deploy/kuberay/rayjob.yaml")
    return job


def pods() -> Iterator[dict[str, Any]]:
    cluster = ray_job()["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])
    yield documents("deploy/kuberay/cronjob.yaml")[-1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_kuberay_knows_each_field_of_the_job() -> None:
    job = ray_job()
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == RAY_JOB and set(cluster) == RAY_CLUSTER
    assert all(set(group) == WORKER_GROUP for group in cluster["workerGroupSpecs"])
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == pinned("ray")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    limits = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


def test_pods_mount_what_they_have_run_as_no_root_and_hold_no_secret() -> None:
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            names = [variable["name"] for variable in container.get("env", [])]
            assert not [name for name in names if re.search("KEY|TOKEN|SECRET|PASSW", name)]


def test_the_nightly_job_may_start_runs_and_look_at_them_alone() -> None:
    account, role, binding, cron = documents("deploy/kuberay/cronjob.yaml")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [s["name"] for s in binding["subjects"]] == [account["metadata"]["name"]]
    spec = cron["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid" and pod["serviceAccountName"] == account["metadata"]["name"]
    assert "/runs/lines-sweep" in ray_job()["spec"]["entrypoint"], "what the nightly job puts the date into"
    assert "s#/runs/lines-sweep#" in pod["containers"][0]["args"][0]


def test_the_commands_in_the_manifests_are_ours() -> None:
    from typer.testing import CliRunner

    from pipeline.cli.main import app

    words = shlex.split(ray_job()["spec"]["entrypoint"])
    assert words[:2] == ["lines", "run"]
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    assert all(word in shown for word in words if word.startswith("--"))


@pytest.mark.checkout
def test_the_image_is_of_the_ray_that_is_pinned_and_copies_what_is_there() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {step for step, _ in steps} <= {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN"}
    assert ["ARG", f"RAY={pinned('ray')}"] in steps and ["FROM", "rayproject/ray:${RAY}-py311"] in steps
    allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    copied = {name for step, words in steps if step == "COPY" for name in words.split()[1:-1]}
    assert all((ROOT / name).exists() and f"!{name}" in allowed for name in copied)
    assert {"lines_sweep", "pipeline", "search", "tasks"} <= copied
    assert any("-c constraints.txt" in words for step, words in steps if step == "RUN")


@pytest.mark.slow
def test_aws_is_asked_for_a_group_that_lets_in_ssh_and_its_own_nodes_and_for_spot_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run Ray's launcher against moto's AWS, up to the point that needs an instance that answers."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    (config,) = documents("cluster.yaml")
    profile = {"Arn": "arn:aws:iam::123456789012:instance-profile/head"}  # or else Ray makes one, and moto its policies
    config["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] = profile
    with mock_aws():
        ready = bootstrap_aws(prepare_config(config))
        worker = ready["available_node_types"]["gpu_worker"]["node_config"]
        AWSNodeProvider(ready["provider"], ready["cluster_name"]).create_node(worker, {}, 1)
        client = boto3.client("ec2", config["provider"]["region"])
        (group,) = client.describe_security_groups(GroupNames=["lines-sweep"])["SecurityGroups"]
        instances = [i for r in client.describe_instances()["Reservations"] for i in r["Instances"]]
    own = {pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]}
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert own == {group["GroupId"]}
    assert [(rule["FromPort"], rule["ToPort"]) for rule in outside] == [(22, 22)]
    assert [i["InstanceType"] for i in instances] == ["g5.2xlarge"]
    assert {i["InstanceLifecycle"] for i in instances} == {"spot"}
