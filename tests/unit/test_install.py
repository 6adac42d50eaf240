"""Proves that the installation passes pip's settings on to uv, and installs with pip where uv cannot."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("install", Path(__file__).parents[2] / "deploy/install.py")
assert SPEC and SPEC.loader
install = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(install)


def test_settings_of_pip_reach_uv_and_its_environment_variables_win() -> None:
    listed = r"""
global.cert='/certificates.crt'
global.extra-index-url='https://one/simple\nhttps://two/simple'
global.find-links='/wheels /more'
global.index-url='https://file/simple'
global.timeout='60'
:env:.index-url='https://variable/simple'
"""
    assert install.uv_settings(listed) == {
        "SSL_CERT_FILE": "/certificates.crt",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://variable/simple",
    }


@pytest.mark.parametrize("failing", ["pip install uv", "uv pip install"])
def test_pip_installs_where_uv_cannot(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.delenv("TORCH_BACKEND", raising=False)

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        words = " ".join(word for word in command[2:] if not word.startswith("-") and word != "constraints.txt")
        called.append(words)
        return subprocess.CompletedProcess(command, int(words.startswith(failing)), stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    assert install.main(["-e", "here"]) == 0
    assert called[-1] == "pip install here"


def test_a_build_of_torch_reaches_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        called.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TORCH_BACKEND", "cpu")
    assert install.main(["-e", "here"]) == 0
    assert "--torch-backend cpu -c constraints.txt -e here" in " ".join(called[-1])


def test_a_build_of_torch_is_refused_where_uv_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "PIP", ["/bin/false"])
    monkeypatch.setenv("TORCH_BACKEND", "cpu")
    assert install.main(["-e", "here"]) == 1
    assert "TORCH_BACKEND=cpu: only uv installs another build of torch" in capsys.readouterr().err


def test_an_error_of_both_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "PIP", ["/bin/false"])
    monkeypatch.delenv("TORCH_BACKEND", raising=False)
    assert install.main(["-e", "."]) == 1
