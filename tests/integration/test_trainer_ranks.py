"""One model over two processes: what it learns is what one process learns."""

from __future__ import annotations

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
from node.trainer import frames as f
from node.trainer.follower import follower_environment
from node.trainer.gang import Gang
from node.trainer.session import Desk, Session
from node.trainer.sharded import refuse_what_is_not_spread
from node.trainer.tiny_tokenizer import train_tokenizer
from protocols.identifiers import body_digest
from protocols.wire import decode_rollouts, encode
from tests.integration.test_trainer import MANIFEST, PEER, SEED, Running, generate, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen 2 with tied embeddings and the built-in model's tokenizer."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
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


async def played(node: Running, number: int) -> tuple[bytes, i.TrainingFinished]:
    """Generate, train on what was generated, save; return the body and what training said."""
    await node.link.execute(generate(4, number))
    made = await node.next(i.RolloutsGenerated)
    assert isinstance(made, i.RolloutsGenerated)
    body = with_one_right(node.shelf.kept[made.body])
    node.shelf.put(body_digest(body), body, number)
    await node.link.execute(c.TrainOnRollouts(number, 0, body_digest(body), (), 2, 60.0))
    await node.link.execute(c.SaveCheckpoint(number))
    done = await node.next(i.TrainingFinished)
    assert isinstance(done, i.TrainingFinished)
    await node.next(i.CheckpointSaved)
    return node.shelf.kept[made.body], done


def played_alone(model: Path, home: Path, number: int) -> tuple[bytes, f.Trained]:
    """The same by one process, this one."""
    settings = TrainerSettings(model=str(model), device="cpu", engine="hf", micro_batch=8)
    session, desk = Session(f.SetUp(settings, MANIFEST, PEER, str(home))), Desk(lambda: False, lambda done, total: None)
    made = session.generate(f.Generate(1, number, 0, SEED, 4), desk)
    done = session.train(f.Train(2, number, 0, with_one_right(made.body), (), 2, 60.0), desk)
    session.save(f.Save(3, number))
    return made.body, done


async def test_two_ranks_learn_what_one_learns(model: Path, tmp_path: Path) -> None:
    """The same rollouts, the same losses, the same weights; a checkpoint of two is resumed by two and is a model."""
    homes = tmp_path / "1" / "trainer", tmp_path / "2" / "trainer"
    async with running(model, homes[1], ranks=2, device="cpu", engine="hf", micro_batch=8) as node:
        await node.ready()
        two_body, two = await played(node, 3)
    one_body, one = played_alone(model, homes[0], 3)
    assert two_body == one_body
    assert (two.updates, two.own) == (one.updates, one.own) == (2, one.own)
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    weights, spread = (load_file(home / "model" / "model.safetensors") for home in homes)
    start = load_file(model / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(spread[name], value, atol=2e-5, rtol=1e-3)
    assert any(not torch.equal(value, start[name]) for name, value in spread.items())

    async with running(model, homes[1], ranks=2, device="cpu", engine="hf") as node:
        ready = await node.ready()
        assert isinstance(ready, i.TrainerReady)
        assert ready.checkpoint_round == 3
        _, again = await played(node, 4)
        assert again.updates == 2


@pytest.mark.parametrize("setting", [{"lora": 8}, {"kl": 0.1}, {"engine": "vllm"}, {"optimizer": "adam8bit"}])
def test_what_is_not_spread_is_refused(setting: dict[str, object]) -> None:
    """The line names what to set."""
    with pytest.raises(ValueError, match=f"set trainer.{next(iter(setting))} = "):
        refuse_what_is_not_spread(TrainerSettings(ranks=2, **setting))  # type: ignore[arg-type]


def test_parts_are_dealt_so_that_every_rank_has_one_each_time() -> None:
    """Five parts over two ranks are three rows; the last one counts on one rank alone."""
    first, second = ([(part, counts) for _, part, counts in Gang(rank, 2).rows("abcde")] for rank in (0, 1))
    assert first == [("a", True), ("c", True), ("e", True)]
    assert second == [("b", True), ("d", True), ("e", False)]


def test_followers_have_torchrun_s_variables_and_a_gpu_each() -> None:
    """GPUs are taken from the visible ones, in order."""
    made = follower_environment(1, 2, "10.0.0.1:29500", "4,6")
    wanted = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert {name: made[name] for name in wanted} == wanted
    assert made["CUDA_VISIBLE_DEVICES"] == "6"
