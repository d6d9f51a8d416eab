"""What child processes get of the environment."""

import os
import sys

import pytest

from node.child_process import COMPUTE, DOWNLOAD, HERE, child_environment
from node.identity.secret import SECRET_VARIABLES
from node.publishing import hub_service
from node.trainer import rank_environment

SECRETS = (*SECRET_VARIABLES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CREDENTIALS_DIRECTORY", "VLLM_API_KEY")


def test_only_what_is_named_is_passed() -> None:
    """By name or by pattern; what is given is added, and wins."""
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "CUDA_HOME": "/cuda",
        "SWARM_CHAIN_URLS": "ws://a",
        "OMP_NUM_THREADS": "9",
    }
    environment = child_environment(environ, COMPUTE, OMP_NUM_THREADS="1")
    del environment["PYTHONPATH"]
    assert environment == {
        "PATH": "/bin", "LC_ALL": "C", "CUDA_HOME": "/cuda", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1",
    }  # fmt: skip


@pytest.mark.parametrize("passed", [(), COMPUTE, DOWNLOAD, rank_environment.PASSED])
def test_no_pattern_takes_a_secret(passed: tuple[str, ...]) -> None:
    """The path of the hub's token file is none: the file is read where it is needed."""
    environ = dict.fromkeys((*SECRETS, "HF_TOKEN_PATH"), "x")
    assert set(child_environment(environ, passed)) - {"HF_TOKEN_PATH"} == {"PYTHONPATH", "PYTHONSAFEPATH"}


def test_a_push_gets_the_hub_s_token_only() -> None:
    """A secret is passed where it is named, and nowhere else."""
    environment = child_environment(dict.fromkeys(SECRETS, "x"), hub_service.PASSED)
    assert set(environment) & set(SECRETS) == {"HF_TOKEN", "CREDENTIALS_DIRECTORY"}


def test_another_interpreter_finds_this_program() -> None:
    """Before what the operator's PYTHONPATH has; an empty part of that would be the current directory."""
    environment = child_environment({"PYTHONPATH": f"/a{os.pathsep}{os.pathsep}/b"}, (), "/opt/python")
    assert environment["PYTHONPATH"].split(os.pathsep) == [HERE, "/a", "/b"]


def test_an_installed_program_is_not_put_before_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPATH comes before the standard library: a package could shadow it."""
    monkeypatch.setattr("site.getsitepackages", lambda: [HERE])
    assert child_environment({}, (), sys.executable)["PYTHONPATH"] == ""
