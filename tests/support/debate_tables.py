"""Questions, bodies and a table of debaters that the tests of games share."""

from collections.abc import Callable

from node.data.questions import Question
from protocols.games import game_named
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import GameSpec, Manifest, StageSpec
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, decode_rollouts, encode

SEED = b"s" * 32
ROUND = 5
NAMES = ("answer", "critique", "resolve")


class Doubles:
    """A data set of doublings."""

    digest = b"d" * 32

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Question:
        return Question(f"twice {index}?", f"#### {2 * index}")

    def held_out(self, count: int) -> list[Question]:
        return []


class Memory(dict[Digest, bytes]):
    """`node.ports.bodies.Bodies` in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self[digest] = body


def debate(**parameters: str | int | float | bool) -> Manifest:
    """A small debate: groups of two."""
    return Manifest(
        name="t",
        game=GameSpec(
            name="debate", num_prompts=4, min_prompts=1, num_generations=2, max_completion=64, parameters=parameters
        ),
        stages=tuple(StageSpec(name=name, seconds=60) for name in NAMES),
    )


Say = Callable[[int, int], str]
"""What is said to a question (its index) in completion number n."""


def groups_for(manifest: Manifest, peer: str, stage: int, groups: int, say: Say) -> tuple[Group, ...]:
    game, questions = game_named(manifest.game.name), Doubles()
    made = []
    for slot in range(groups):
        index = game.question(questions.digest, SEED, peer, stage, slot, len(questions))
        texts = [say(index, number) for number in range(manifest.game.num_generations)]
        made.append(Group(slot, index, tuple(Completion(text, b"\1\0\0\0", bytes(4), True) for text in texts)))
    return tuple(made)


def body_of(
    groups: tuple[Group, ...],
    stage: int = 0,
    quoted: tuple[Digest, ...] = (),
    seed: bytes = b"",
    author: Address = "",
) -> bytes:
    return encode(Rollouts(ROUND, stage, bytes(32), groups, quoted, seed, author))


def announced(body: bytes, stage: int = 0) -> Announcement:
    return Announcement(PROTOCOL_VERSION, bytes(32), ROUND, stage, SEED, body_digest(body), len(body), b"")


def decode_bodies(bodies: Memory) -> dict[Digest, Rollouts]:
    return {digest: decode_rollouts(body, digest, len(body)) for digest, body in bodies.items()}
