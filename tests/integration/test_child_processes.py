"""What real child processes take from the directory and the environment in which the node was started."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.grading.latex_grader import screen
from node.grading.pool import PooledGrader
from node.identity.secret import SECRET_VARIABLES
from node.localnet.local_chain import LocalChain
from node.localnet.processes import ManagedProcess, end_all, process_tree
from node.publishing.hub_push import PushRequest
from node.publishing.hub_service import PushError, _start_push, pushing
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.rank_environment import start_rank_workers
from tests.integration.test_trainer import running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc shows the environment of a process on Linux"),
]

PLANTED = ("queue", "org", "argparse", "socket", "msgspec", "torch", "node")
"""Names of modules that a child imports, or may: each stands as a file where the node was started."""
SECRETS = (*SECRET_VARIABLES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CREDENTIALS_DIRECTORY", "WANDB_API_KEY")
VALUE = "nobody-may-read-this"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, hardly trained."""
    directory = tmp_path_factory.mktemp("model") / "builtin"
    build_builtin_model(directory, 0, steps=2)
    return directory


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hostile directory to start from, and secrets in the environment; the file says which modules were executed."""
    place, mark = tmp_path / "hostile", tmp_path / "executed"
    place.mkdir()
    for name in PLANTED:
        (place / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write(__name__ + ' ')\n")
    monkeypatch.chdir(place)
    for variable in SECRETS:
        monkeypatch.setenv(variable, f"{VALUE}-{variable}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return mark


def environment(pid: int) -> dict[str, str]:
    """Return a process's environment as the kernel shows it, without its PYTHONPATH's directories."""
    content = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.partition("=")[::2] for line in content.split("\0") if line)


def secrets_of(pid: int) -> list[str]:
    """Return the variables of a process that have a secret's name or value."""
    return [name for name, value in environment(pid).items() if name in SECRETS or VALUE in value]


def executed(mark: Path) -> str:
    """Return the names of the planted modules that were executed."""
    return mark.read_text() if mark.exists() else ""


async def test_the_trainer_is_given_no_secret_and_no_foreign_module(model: Path, mark: Path, tmp_path: Path) -> None:
    """It loads its model in a directory that would shadow half of what it imports."""
    async with running(model, tmp_path / "trainer") as node:
        await node.ready()
        found = environment(node.pid)
        assert secrets_of(node.pid) == []
    assert executed(mark) == ""
    assert found["PATH"] == os.environ["PATH"]
    assert found["CUDA_VISIBLE_DEVICES"] == ""


def test_a_grading_worker_is_given_no_secret_and_no_foreign_module(mark: Path) -> None:
    """Nor does what it forks for each completion: a fork has its environment."""
    pytest.importorskip("math_verify", reason="needs the extra [math]")
    grader = PooledGrader("latex/1", screen, workers=1)
    try:
        assert grader(r"\boxed{\frac{2x}{4}}", r"\frac{x}{2}") == 1.0
        assert secrets_of(grader._workers[0]._process.pid) == []
    finally:
        grader.close()
    assert executed(mark) == ""


@pytest.fixture
def rank_worker() -> Iterator[int]:
    """The process id of a rank that waits for rank 0."""
    before = process_tree(os.getpid())
    start_rank_workers(2)
    (pid,) = process_tree(os.getpid()) - before
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_rank_worker_is_given_no_secret_and_no_foreign_module(mark: Path, rank_worker: int) -> None:
    """It has come as far as torch when the library is mapped into its memory."""
    deadline = time.monotonic() + 60
    while "libtorch" not in Path(f"/proc/{rank_worker}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "libtorch" in Path(f"/proc/{rank_worker}/maps").read_text()
    assert secrets_of(rank_worker) == []
    assert environment(rank_worker)["RANK"] == "1"
    assert executed(mark) == ""


async def test_a_push_is_given_the_hub_s_token_alone(mark: Path, tmp_path: Path) -> None:
    """It fails, for there is no model; what it was given shows while it runs."""
    child = _start_push()
    try:
        assert set(secrets_of(child.pid)) == {"HF_TOKEN", "CREDENTIALS_DIRECTORY"}
    finally:
        child.kill()
        child.communicate()
    order = PushRequest(trainer=str(tmp_path), repo="a/b", private=False, token_file="", base="", card="", message="m")
    with pytest.raises(PushError, match=r"(?i)checkpoint|model"):
        await pushing(order)
    assert executed(mark) == ""


def test_the_local_chain_is_given_no_secret(mark: Path) -> None:
    """It is a program of somebody else's."""
    with LocalChain() as chain:
        assert secrets_of(chain.pid) == []


def test_a_process_of_the_demo_is_given_no_secret_and_no_foreign_module(mark: Path, tmp_path: Path) -> None:
    """The command line as the demo starts it."""
    child = ManagedProcess("version", [sys.executable, "-m", "node.cli", "version"], tmp_path / "log")
    try:
        assert secrets_of(child.pid) == []
        assert child.wait(60) == 0, child.last_words()
    finally:
        end_all([child])
    assert executed(mark) == ""
