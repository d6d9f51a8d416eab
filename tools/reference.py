"""Writes docs/reference/*.md from the code: commands, configuration, metrics, exit codes, log events, messages."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import click
import msgspec

from node.cli import swarm
from node.config import DATA_DIR_VARIABLE, KEYS, Config, ConfigKey
from node.exits import MEANING
from node.http.metrics import documented
from node.machine.phases import VOTE, WORK
from node.network.libp2p_patches.repairs import LIBRARY, REPAIRS, REQUIRED_VERSION
from node.runtime.log_events import EVENTS
from protocols import manifest, session, signed_messages, wire
from protocols.reasons import BODY_REASONS
from tools.import_rules import load_rooms, rooms_table
from tools.markdown import code, page, table
from tools.trl_names import TRL_NAMES

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / "docs" / "reference"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
ROOMS_BEGIN = "<!-- rooms: written by `make docs` from tools/rooms.toml -->"
ROOMS_END = "<!-- rooms end -->"
LEVELS = ("debug", "info", "warning", "error", "exception")
LOGGED_IN = ("node", "tools")


def main() -> int:
    """Write every page; say which changed."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = DIRECTORY / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written {path.relative_to(ROOT)}")
    ARCHITECTURE.write_text(with_rooms(ARCHITECTURE.read_text()))
    return 0


def pages() -> dict[str, str]:
    """Return every page by file name."""
    return {
        "commands.md": commands_page(),
        "config.md": config_page(),
        "exit-codes.md": exit_page(),
        "libp2p-repairs.md": repairs_page(),
        "log-events.md": log_page(),
        "manifest.md": structs_page(
            "Swarm manifest", "The content of `manifest.toml`: what all peers of a swarm agree on.", MANIFEST
        ),
        "metrics.md": metrics_page(),
        "reasons.md": reasons_page(),
        "state-machine.md": phases_page(),
        "wire.md": structs_page("Messages between peers", (wire.__doc__ or "").partition("\n\n")[2], WIRE),
    }


def with_rooms(text: str) -> str:
    """Return docs/architecture.md with the table of rooms as tools/rooms.toml has it."""
    head, _, rest = text.partition(ROOMS_BEGIN)
    _, _, tail = rest.partition(ROOMS_END)
    return f"{head}{ROOMS_BEGIN}\n\n{rooms_table(load_rooms())}\n\n{ROOMS_END}{tail}"


# --- phases of the machine ------------------------------------------------------------------------------------------


def phases_page() -> str:
    """Return the transition tables, each as a diagram and as a table."""
    introduction = """The two phase machines of a node, drawn from the tables in `node/machine/phases.py` from which it
        runs. Everything else that it decides follows from these phases and from what has arrived."""
    parts = [_phases_part("This node's work in a stage", WORK), _phases_part("A vote on a round's winners", VOTE)]
    return page("State machine", introduction, *parts)


def _phases_part(title: str, transitions: Mapping[Any, str]) -> str:
    arrows = [f"    {before or '[*]'} --> {after}: {event}" for (before, event), after in transitions.items()]
    rows = [(code(before or ""), event, code(after)) for (before, event), after in transitions.items()]
    diagram = "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])
    return f"## {title}\n\n{diagram}\n\n" + table(("Phase", "Event", "Next phase"), rows)


# --- configuration ------------------------------------------------------------------------------------------------


def config_page() -> str:
    """Return the page of configuration keys."""
    introduction = f"""Flags win over environment variables, those over `swarm.toml` in the data directory, that over
    defaults. In variables and flags a list is separated by commas. An unknown key, or a value of the wrong type, ends
    the command with exit code 3. The data directory itself is `--data-dir` or `{DATA_DIR_VARIABLE}`."""
    return page("Configuration", introduction, *(section(name) for name in ("", *sections())))


def sections() -> tuple[str, ...]:
    """Return the sections in their order."""
    return tuple(dict.fromkeys(name.split(".")[0] for name in KEYS if "." in name))


def section(name: str) -> str:
    """Return heading and table of one section; "" is the top of the file."""
    keys = [key for key in KEYS.values() if key.name.rpartition(".")[0] == name]
    rows = [(code(key.name), code(key.variable), code(shown(key.default)), type_of(key), key.help) for key in keys]
    title = f"## [{name}]" if name else "## Top level"
    head = ("ConfigKey", "Variable", "Default", "Type", "Meaning")
    return f"{title}\n\n" + table(*with_trl(head, rows, [key.name for key in keys]))


def with_trl(
    head: tuple[str, ...], rows: Sequence[tuple[str, ...]], keys: Sequence[str]
) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    """Return head and rows with a column for TRL's names, if any of the keys has one."""
    names = [TRL_NAMES.get(key, "") for key in keys]
    if not any(names):
        return head, rows
    return (*head, "TRL"), [(*row, name) for row, name in zip(rows, names, strict=True)]


def shown(value: object) -> str:
    """Return a default as it stands in TOML."""
    return msgspec.json.encode(value).decode()


def type_of(key: ConfigKey) -> str:
    """Return a key's type and bounds."""
    hint = get_type_hints(owner_of(key.name))[key.name.rpartition(".")[2]]
    return type_text(hint) + bounds(key.type)


def owner_of(name: str) -> type[msgspec.Struct]:
    """Return the struct that holds a dotted key."""
    head, dot, _ = name.partition(".")
    owner: type[msgspec.Struct] = get_type_hints(Config)[head] if dot else Config
    return owner


def bounds(hint: object) -> str:
    """Return ", > 0" and the like for an annotated type."""
    if get_origin(hint) is not Annotated:
        return ""
    signs = {"gt": ">", "ge": "at least", "lt": "<", "le": "at most"}
    metas = [each for each in get_args(hint)[1:] if isinstance(each, msgspec.Meta)]
    found = [(sign, getattr(meta, name)) for meta in metas for name, sign in signs.items()]
    return "".join(f", {sign} {value}" for sign, value in found if value is not None)


def type_text(hint: object) -> str:
    """Return a type for reading."""
    if get_origin(hint) is Literal:
        return " or ".join(code(str(each)) for each in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(type_text(each) for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is dict:
        return f"table of {type_text(get_args(hint)[1])}"
    if get_origin(hint) is tuple:
        return f"list of {type_text(get_args(hint)[0])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", bytes: "bytes"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))  # type: ignore[call-overload, no-any-return]


# --- commands -----------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the page of commands."""
    introduction = """`swarm COMMAND --help` says the same. Every command takes `--help`; flags that set a key of the
    configuration stand in [config.md](config.md) too. Errors are one line on stderr and an exit code
    ([exit-codes.md](exit-codes.md))."""
    return page("Commands", introduction, *map(command_part, commands_of(swarm, ("swarm",))))


Named = tuple[tuple[str, ...], click.Command]
"""A command with the words that call it."""


def commands_of(group: click.Group, words: tuple[str, ...]) -> Iterator[Named]:
    """Yield the commands of a group in the order of its help, and those of groups within."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, (*words, name))
        elif command is not None:
            yield (*words, name), command


def command_part(named: Named) -> str:
    """Return heading, usage, description and options of a command."""
    words, command = named
    context = click.Context(command, info_name=" ".join(words))
    usage = " ".join((*words, *command.collect_usage_pieces(context)))
    rows = [
        (code(record[0]), record[1])
        for each in command.params
        if not getattr(each, "hidden", False) and (record := each.get_help_record(context))
    ]
    options = table(("Option", "Meaning"), rows) if rows else ""
    parts = (f"## {' '.join(words)}", code(usage), inspect.cleandoc(command.help or ""), options)
    return "\n\n".join(part for part in parts if part)


# --- exit codes and metrics ---------------------------------------------------------------------------------------


def exit_page() -> str:
    """Return the page of exit codes."""
    rows = [(str(int(each)), each.name, meaning) for each, meaning in MEANING.items()]
    introduction = "Of every `swarm` command. An error is one line on stderr: what happened, why, what to do."
    return page("Exit codes", introduction, table(("Code", "Name", "Meaning"), rows))


def metrics_page() -> str:
    """Return the page of metrics."""
    rows = [(code(name), kind, ", ".join(map(code, labels)), text) for name, kind, labels, text in documented()]
    introduction = """`/metrics` of the status server, in Prometheus' text format or OpenMetrics; `swarm_process_*`
    (memory, CPU time, open files) come on top."""
    return page("Metrics", introduction, table(("Metric", "Kind", "Labels", "Meaning"), rows))


def reasons_page() -> str:
    """Return the page of reasons why a body does not count."""
    rows = [(code(name), reason.severity, reason.meaning) for name, reason in BODY_REASONS.items()]
    introduction = """Why a peer's body does not count: the code in the log (`rollouts.refused`,
    `rollouts.uncounted`), in `swarm status`, and the label of `swarm_bodies_refused_total`. The severity says what
    it does to the sender's score ([checks.md](../checks.md))."""
    return page("Reasons", introduction, table(("Code", "Severity", "Meaning"), rows))


def repairs_page() -> str:
    """Return the page of what is repaired in the network library."""
    rows = [
        (code(each.name), code(each.target.replace(":", ".")), each.kind, each.why, each.upstream, code(each.where))
        for each in REPAIRS
    ]
    introduction = f"""Every place where the node replaces, overrides or uses internals of {LIBRARY}
    {REQUIRED_VERSION}, the only version that it runs with. "Replaced" holds for the whole process, "replaced on an
    object" for this node's own hosts and services; what is "used" is called, read or written by the repairs. "Not
    reported" means that no issue of the library was found. `tests/unit/network/libp2p_patches` shows that each name is
    still used by the library, and that the defect is still there without the repair."""
    head = ("Name", "Of", "Kind", "Why", "Upstream", "Repaired in")
    return page("Repairs of py-libp2p", introduction, table(head, rows))


# --- log events ---------------------------------------------------------------------------------------------------


class LogLine(NamedTuple):
    """One event as it is logged somewhere."""

    event: str
    level: str
    fields: tuple[str, ...]
    where: str


def log_page() -> str:
    """Return the page of log events."""
    merged: dict[str, list[LogLine]] = {}
    for line in sorted({*loop_lines(), *logged_lines()}):
        merged.setdefault(line.event, []).append(line)
    rows = [
        (
            code(event),
            ", ".join(dict.fromkeys(line.level for line in lines)),
            ", ".join(code(name) for name in dict.fromkeys(name for line in lines for name in line.fields)),
            ", ".join(code(where) for where in dict.fromkeys(line.where for line in lines)),
        )
        for event, lines in sorted(merged.items())
    ]
    introduction = """One JSON object per line on stdout (text on a terminal). Every line has `ts` (ISO 8601, UTC),
    `level` and `event`, and `round` and `stage` where they are known; what libraries log is `library.log` with
    `library` and `message`. Values under keys that name a secret, and credentials inside URLs, are blanked."""
    return page("Log events", introduction, table(("Event", "Level", "Fields", "From"), rows))


def loop_lines() -> Iterator[LogLine]:
    """Yield what the loop logs of inputs, commands and notices."""
    for kind, (level, event) in EVENTS.items():
        yield LogLine(event, level, tuple(field.name for field in msgspec.structs.fields(kind)), kind.__name__)


@cache
def logged_lines() -> tuple[LogLine, ...]:
    """Return every `log.LEVEL("event", key=...)` in the sources."""
    return tuple(
        line
        for path in sorted(path for room in LOGGED_IN for path in (ROOT / room).rglob("*.py"))
        for found in ast.walk(ast.parse(path.read_text()))
        if isinstance(found, ast.Call)
        for line in _lines_of(found, path.relative_to(ROOT).as_posix())
    )


def _lines_of(call: ast.Call, where: str) -> Iterator[LogLine]:
    function = call.func
    if not (isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and call.args):
        return
    if function.value.id != "log" or function.attr not in LEVELS:
        return
    level = "error" if function.attr == "exception" else function.attr
    fields = tuple(keyword.arg for keyword in call.keywords if keyword.arg)
    for event in _texts(call.args[0]):
        if "." in event and " " not in event:
            yield LogLine(event, level, fields, where)


def _texts(given: ast.expr) -> Iterator[str]:
    """Yield the texts an expression can be: a constant, or either branch of a condition."""
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        yield given.value
    elif isinstance(given, ast.IfExp):
        yield from _texts(given.body)
        yield from _texts(given.orelse)


# --- structs ------------------------------------------------------------------------------------------------------

MANIFEST = (
    manifest.Manifest,
    manifest.Deployment,
    manifest.DataSpec,
    manifest.GameSpec,
    manifest.StageSpec,
    manifest.VotingSpec,
    manifest.Limits,
    manifest.Checks,
)
WIRE = (
    wire.Envelope,
    wire.Announcement,
    wire.BoundAnnouncement,
    session.SessionStatement,
    wire.BoundDelegation,
    signed_messages.SignedDelegation,
    signed_messages.SignedRevocation,
    signed_messages.SignedCommitment,
    signed_messages.VoteReveal,
    signed_messages.SignedVote,
    signed_messages.SignedReward,
    wire.Rollouts,
    wire.Group,
    wire.Completion,
)


def structs_page(title: str, introduction: str, structs: Sequence[type[msgspec.Struct]]) -> str:
    """Return a page that describes structs field by field, in the order of their encoding."""
    return page(title, introduction, *map(struct_part, structs))


def struct_part(struct: type[msgspec.Struct]) -> str:
    """Return heading, description and fields of a struct."""
    hints = get_type_hints(struct)
    defaults = {field.name: field for field in msgspec.structs.fields(struct)}
    rows = [
        (code(name), type_text(hints[name]), code(default_of(field)) or "(needed)") for name, field in defaults.items()
    ]
    keys = [f"game.{name}" if struct is manifest.GameSpec else name for name in defaults]
    columns = with_trl(("Field", "Type", "Default"), rows, keys)
    return f"## {struct.__name__}\n\n{inspect.getdoc(struct)}\n\n" + table(*columns)


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """Return a field's default, empty where it has none."""
    if field.default_factory is not msgspec.NODEFAULT:
        return shown(field.default_factory())
    return "" if field.default is msgspec.NODEFAULT else shown(field.default)


if __name__ == "__main__":
    sys.exit(main())
