"""Proves that a job's address, folder, variables and versions are checked, and that secrets are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.submit import job_variables, run_place
from pipeline.cluster.jobs.client import environment, jobs_url
from pipeline.cluster.jobs.layout import ARGUMENTS
from pipeline.versions import check_versions, comparable_versions

ROOT = Path(__file__).parents[3]


def test_other_versions_are_named_and_packages_missing_here_are_skipped() -> None:
    ours = {"python": "3.11", "torch": "2.15.0", "numpy": "2.4.0", "peft": "not installed"}
    check_versions({**ours, "peft": "0.21"}, ours)
    with pytest.raises(ValueError) as error:
        check_versions({"python": "3.12", "torch": "2.15.0"}, ours)
    assert "python 3.12 (submitted from 3.11), numpy not installed (submitted from 2.4.0)" in str(error.value)
    assert set(comparable_versions()) > {"python", "torch", "optuna"}


@pytest.mark.checkout
def test_a_job_checks_versions_before_it_imports_anything(tmp_path: Path) -> None:
    """The cluster's Python may have none of the packages: this one has no site-packages."""
    (tmp_path / ARGUMENTS).parent.mkdir()
    (tmp_path / ARGUMENTS).write_text(json.dumps({"versions": {"torch": "2.15.0"}, "out": "/run", "arguments": []}))
    words = [sys.executable, "-S", "-m", "pipeline.cli.job_entry"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert found.returncode == 2
    assert "error: the cluster has other versions" in found.stderr and "torch not installed" in found.stderr


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://10.0.0.1:8265", "http://10.0.0.1:8265"),
        ("https://ray.example.org", "https://ray.example.org:443"),
        ("head", "http://head:8265"),
        ("head:9000/", "http://head:9000"),
        ("[::1]:8265", "http://[::1]:8265"),
        ("auto", "http://127.0.0.1:8265"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert jobs_url(address) == url


@pytest.mark.parametrize("address", ["ray://head:10001", "os://head", "", "http://", "head:port", "http://me:pw@head"])
def test_addresses_that_are_not_those_of_a_dashboard_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must be that of a Ray dashboard"):
        jobs_url(address)


def test_a_relative_folder_would_be_gone_with_the_job() -> None:
    assert run_place(None, "demo") == "~/lines-runs/demo"
    assert run_place("s3://bucket/runs", "demo") == "s3://bucket/runs"
    with pytest.raises(ValueError, match="was given with a user or a password") as error:
        run_place("s3://me:hunter2@bucket/runs", "demo")
    assert "hunter2" not in str(error.value)
    for out in ("runs/demo", "./demo", ""):
        with pytest.raises(ValueError, match="must be a URL .* or a full path on the cluster's head"):
            run_place(out, "demo")


def test_variables_are_passed_by_name_or_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert (
        job_variables(["AWS_ENDPOINT_URL", "A=b=c"]).items()
        >= {"AWS_ENDPOINT_URL": "http://store:9000", "A": "b=c"}.items()
    )
    with pytest.raises(ValueError, match="is not set here"):
        job_variables(["NOT_SET_ANYWHERE"])


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "password",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_STORAGE_CONNECTION_STRING",
        "CONNECTIONSTRING",
        "MYSQL_PWD",
        "AZURE_SAS",
        "BLOB_SAS_URL",
        "HTTP_AUTH",
        "DB_PASS",
        "SSH_PASSPHRASE",
    ],
)
def test_names_of_secrets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--env {name}: looks like a secret") as error:
        job_variables([f"{name}=abc123"])
    assert "abc123" not in str(error.value)


@pytest.mark.parametrize("name", ["AUTHOR", "SASHA", "PWD", "BYPASS_CACHE", "OLDPWDS"])
def test_names_that_only_contain_the_letters_of_a_secret_pass(name: str) -> None:
    assert job_variables([f"{name}=a"])[name] == "a"


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@proxy",
        "redis://:hunter2@host",
        "https://hunter2@host/x",
        "one https://host/x,https://hunter2@host",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2",
        "Endpoint=sb://host/;SharedAccessKeyName=a;SharedAccessKey=hunter2",
        "https://a.blob.core.windows.net/c?sv=2024&sig=hunter2",
    ],
)
def test_values_that_hold_a_password_or_a_key_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="--env X: .*which the dashboard would show") as error:
        job_variables([f"X={value}"])
    assert "hunter2" not in str(error.value)


def test_values_with_an_at_elsewhere_pass() -> None:
    for value in ("https://host/@scope/package", "me@example.org", "s3://bucket/a b@c"):
        assert job_variables([f"X={value}"])["X"] == value


def test_variables_are_set_for_a_while_and_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets variables of its own while a job is submitted."""
    monkeypatch.setenv("UNSET", "before")
    for name in ("SET", "LATER"):
        monkeypatch.delenv(name, raising=False)
    with environment({"UNSET": None, "SET": "now"}):
        assert "UNSET" not in os.environ and os.environ["SET"] == "now"
        monkeypatch.setenv("LATER", "kept")
    assert os.environ["UNSET"] == "before" and "SET" not in os.environ and os.environ["LATER"] == "kept"
