"""One model over two processes: what it learns is what one process learns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

from node.config import TrainerSettings
from node.data.arithmetic import ArithmeticQuestions
from node.machine import commands as c
from node.machine import inputs as i
from node.trainer import messages as f
from node.trainer.engines.builtin.builtin_tokenizer import train_tokenizer
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.process_group import ProcessGroup
from node.trainer.engines.sharded import ShardedEngine, refuse_what_is_not_sharded
from node.trainer.learning import grpo
from node.trainer.learning.loss_scale import LossScale
from node.trainer.learning.optimizer import make_optimizer
from node.trainer.rank_environment import free_endpoint, rank_worker_environment
from node.trainer.worker.session import Session, TaskContext
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec
from protocols.wire import decode_rollouts, encode
from tests.integration.test_trainer import MANIFEST, PEER, SEED, Running, generate, running
from tests.integration.test_trainer_vllm import PYTHON

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen 2 with tied embeddings and the built-in model's tokenizer."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=512, hidden_size=128, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)  # type: ignore[no-untyped-call]
    train_tokenizer().save(directory)
    return directory


def with_one_right(body: bytes) -> bytes:
    """Random weights never answer right: give each group one right answer, so that it has an advantage."""
    read, questions = decode_rollouts(body, body_digest(body), len(body)), ArithmeticQuestions()
    groups = []
    for group in read.groups:
        right = replace(group.completions[0], text=questions[group.question].answer, finished=True)
        groups.append(replace(group, completions=(right, *group.completions[1:])))
    return encode(replace(read, groups=tuple(groups)))


@contextmanager
def torchrun(meet: str) -> Iterator[Callable[[], int]]:
    """Rank 1 of 2, started as the documentation says it is on another machine; gives its present process id."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--max-restarts", "9"]
    command += [
        "--monitor-interval",
        "0.2",
        "--rdzv-endpoint",
        free_endpoint(),
        "-m",
        "node.trainer.worker.rank_worker",
    ]
    command += ["--first-rank", "1", "--world-size", "2", "--rendezvous-endpoint", meet]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as started:
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        yield lambda: int(children.read_text())
        started.terminate()


async def played(node: Running, number: int) -> tuple[bytes, i.TrainingFinished]:
    """Generate, train on what was generated, save; return the body and what training said."""
    await node.client.execute(generate(4, number))
    made = await node.next(i.RolloutsGenerated)
    assert isinstance(made, i.RolloutsGenerated)
    body = with_one_right(node.bodies.kept[made.body])
    node.bodies.put(body_digest(body), body, number)
    await node.client.execute(c.TrainOnRollouts(number, 0, body_digest(body), (), 2, 60.0))
    await node.client.execute(c.SaveCheckpoint(number))
    done = await node.next(i.TrainingFinished)
    assert isinstance(done, i.TrainingFinished)
    await node.next(i.CheckpointSaved)
    return node.bodies.kept[made.body], done


def played_alone(model: Path, home: Path, number: int) -> tuple[bytes, f.Trained]:
    """The same by one process, this one."""
    settings = TrainerSettings(model=str(model), device="cpu", engine="hf", micro_batch=8)
    session, task = (
        Session(f.SetUp(settings, MANIFEST, PEER, str(home))),
        TaskContext(lambda: False, lambda done, total: None),
    )
    made = session.generate(f.Generate(1, number, 0, SEED, 4), task)
    done = session.train(f.Train(2, number, 0, with_one_right(made.body), (), 2, 60.0), task)
    session.save(f.Save(3, number))
    return made.body, done


async def test_two_ranks_learn_what_one_learns(model: Path, tmp_path: Path) -> None:
    """The same rollouts, losses and weights.

    Rank 1 is killed, with the newest checkpoint damaged: both begin anew from the one before, and what they learn from
    there on is bit for bit what they had learned. Rank 0 alone wrote.
    """
    one_home, home = (tmp_path / n / "trainer" for n in ("1", "2"))
    same = {"device": "cpu", "engine": "hf", "micro_batch": 8}
    one_body, one = played_alone(model, one_home, 3)
    weights = load_file(one_home / "model" / "model.safetensors")
    endpoint = free_endpoint()
    with torchrun(endpoint) as worker:
        async with running(model, home, world_size=2, rendezvous_endpoint=endpoint, **same) as node:
            await node.ready()
            two_body, two = await played(node, 3)
            spread = load_file(home / "model" / "model.safetensors")
            await played(node, 4)
            newest = home / "checkpoints" / "checkpoint-00000002"
            files = "model/model.safetensors", "optimizer.safetensors"
            learned = [(newest / name).read_bytes() for name in files]
            (newest / "optimizer.safetensors").write_bytes(b"damaged")
            os.kill(worker(), signal.SIGKILL)
            await node.client.execute(generate(4, 5))
            await node.next(i.TrainerLost)
            assert (await node.ready()).checkpoint_round == 3
            await played(node, 4)
            again = newest.with_name("checkpoint-00000003")
            assert [(again / name).read_bytes() for name in files] == learned
    assert two_body == one_body
    assert (two.updates, two.own) == (one.updates, one.own) == (2, one.own)
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    start = load_file(model / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(spread[name], value, atol=2e-5, rtol=1e-3)
    assert any(not torch.equal(value, start[name]) for name, value in spread.items())
    assert os.listdir(home.parent) == ["trainer"]

    async with running(model, home, world_size=2, **same) as node:
        assert (await node.ready()).checkpoint_round == 4


@pytest.mark.skipif(not PYTHON, reason="SWARM_VLLM_PYTHON names no interpreter with vLLM")
async def test_two_ranks_sample_by_vllm_what_they_have_learned(model: Path, tmp_path: Path) -> None:
    """By settings alone: the child starts the other rank, both start vLLM, train, hand over and sample again."""
    vllm = {"engine": "vllm", "python": PYTHON, "max_num_seqs": 64}
    async with running(model, tmp_path / "trainer", world_size=2, device="cpu", **vllm) as node:
        await node.ready()
        for number in (1, 2):
            _, done = await played(node, number)
            assert done.updates == 2


def test_sampling_leaves_every_parameter_spread(model: Path) -> None:
    """The update that follows clips the gradient by the norm that one process finds."""
    settings = TrainerSettings(model=str(model), device="cpu", engine="hf")
    game = GameSpec(max_completion=6, max_prompt=16)
    torch.set_num_threads(1)
    outcomes = []
    process_group = ProcessGroup.join(0, 1, free_endpoint())
    try:
        for engine in (CausalEngine.load(settings, game), ShardedEngine.load(settings, game)):
            if isinstance(engine, ShardedEngine):
                engine.shard_over(process_group)
            optimizer = make_optimizer(engine, settings)
            (made,) = engine.sample(["1 + 1?"], 2, torch.Generator().manual_seed(1), lambda: False)
            group = TrainingGroup(engine.encode("1 + 1?"), [s.tokens for s in made], [[], []], [1.0, -1.0], False)
            outcomes.append(
                grpo.update(
                    engine, optimizer, [group], grpo.Objective(max_norm=0.01), limit=grpo.MicroBatchLimit(8, 1000),
                    scale=LossScale(needed=False), watch=lambda done: None, process_group=process_group,
                )
            )  # fmt: skip
    finally:
        torch.distributed.destroy_process_group()
    plain, spread = outcomes
    assert spread.norm == pytest.approx(plain.norm, rel=1e-5)


@pytest.mark.parametrize("setting", [{"lora": 8}, {"beta": 0.1}, {"optimizer": "adam8bit"}])
def test_what_is_not_spread_is_refused(setting: dict[str, object]) -> None:
    """The line names what to set."""
    with pytest.raises(ValueError, match=f"set trainer.{next(iter(setting))} = "):
        refuse_what_is_not_sharded(TrainerSettings(world_size=2, **setting))  # type: ignore[arg-type]


def test_parts_are_dealt_so_that_every_rank_has_one_each_time() -> None:
    """Five parts over two ranks are three rows; the last one counts on one rank alone."""
    first, second = ([(part, counts) for _, part, counts in ProcessGroup(rank, 2).shard("abcde")] for rank in (0, 1))
    assert first == [("a", True), ("c", True), ("e", True)]
    assert second == [("b", True), ("d", True), ("e", False)]


def test_followers_have_torchrun_s_variables_and_a_gpu_each() -> None:
    """GPUs are taken from the visible ones, in order."""
    made = rank_worker_environment(1, 2, "10.0.0.1:29500", "4,6")
    wanted = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert {name: made[name] for name in wanted} == wanted
    assert made["CUDA_VISIBLE_DEVICES"] == "6"
