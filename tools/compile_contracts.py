"""Compile the Solidity sources and write the committed artifacts: `python -m tools.compile_contracts [--check]`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import contracts
from node.localnet.npm_tools import ToolMissingError, default_cache, installed_packages, node_command

CONTRACTS = Path(contracts.__file__).parent
SOURCE = CONTRACTS / "SwarmCoordinator.sol"
ARTIFACT = CONTRACTS / "SwarmCoordinator.json"
RL_SWARM = CONTRACTS / "test" / "RLSwarmCoordinator.sol"
COMPILED = (
    {SOURCE: ARTIFACT}
    | {path: path.with_suffix(".json") for path in sorted((CONTRACTS / "test").glob("*.sol"))}
    | {RL_SWARM: CONTRACTS / "RLSwarmCoordinator.json"}
)
"""Every source that is compiled, and its artifact: the coordinator, contracts that only tests deploy, and the test
contract with RL Swarm's interface, whose ABI the node needs."""
COMPILE_SECONDS = 120.0


def find_or_install_solc(cache_dir: Path | None = None) -> Path:
    """Return the folder with the pinned solc-js: beside the sources, else in the cache (installed if needed)."""
    version = json.loads((CONTRACTS / "package.json").read_text())["devDependencies"]["solc"]
    beside = CONTRACTS / "node_modules" / "solc" / "package.json"
    if beside.exists() and json.loads(beside.read_text())["version"] == version:
        return CONTRACTS
    return installed_packages(CONTRACTS, cache_dir)


def sources_of(source: Path) -> list[Path]:
    """Return a source and everything it imports from its folder, sorted by name."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [path.parent / name for name in re.findall(r'from "\./(\w+\.sol)"', path.read_text())]
    return sorted(found)


def compile_source(cache_dir: Path | None = None, source: Path = SOURCE) -> str:
    """Return the artifact's text. Raises `ToolMissingError` without a compiler, ValueError if it does not compile."""
    command = node_command(cache_dir or default_cache())
    script = str(CONTRACTS / "compile.mjs")
    done = subprocess.run(
        [*command, script, str(find_or_install_solc(cache_dir)), str(source)],
        capture_output=True,
        text=True,
        timeout=COMPILE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{source.name} does not compile: {done.stderr.strip()}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Write the artifacts, or only compare them with `--check`. Return the exit code."""
    try:
        texts = {artifact: compile_source(source=source) for source, artifact in COMPILED.items()}
    except (ToolMissingError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in arguments:
        stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        print(f"stale: {', '.join(stale)}; run make contracts" if stale else "artifacts are current")
        return 1 if stale else 0
    for path, text in texts.items():
        path.write_text(text)
        print(f"{path.name} written, {json.loads(text)['runtime_bytes']} bytes of code")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
