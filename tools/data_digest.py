"""`python -m tools.data_digest MANIFEST [COPY]`: loads a swarm's questions and prints their number and digest."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from node.data.load import load_questions
from protocols.manifest_rules import parse_manifest


def main(manifest: Path, copy: str) -> int:
    """Print number and digest of the questions; return 1, with one line on stderr, if they can't be used."""
    try:
        spec = parse_manifest(manifest.read_bytes())
        began = time.monotonic()
        questions = load_questions(msgspec.structs.replace(spec.data, digest=""), copy, spec.game.grader)
    except (OSError, ValueError) as error:
        print(f"{manifest}: {error}", file=sys.stderr)
        return 1
    held_out = len(questions.held_out(len(questions)))
    print(f"{len(questions)} questions to train on, {held_out} held out, loaded in {time.monotonic() - began:.1f} s")
    print(f'digest = "{questions.digest.hex()}"')
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else ""))
