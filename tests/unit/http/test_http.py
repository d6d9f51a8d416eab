"""The status server, over a real socket on loopback."""

import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from node.config import HttpSettings
from node.http.metrics import LABELLED, TOTALS, documented
from node.http.routes import reasons_not_ready
from node.http.service import HttpListenError, HttpService
from node.machine.status import CurvePoint, PeerStatus, Status, Totals, VoteStatus

ME = "0x" + "ab" * 20
ANY_PORT = HttpSettings(port=0)

READY = Status(
    address=ME,
    phase="working",
    round=7,
    stage=1,
    deadline=1234.5,
    registered=True,
    chain="present",
    network="present",
    trainer="present",
    connected=3,
    reward=0.25,
    accuracy=0.5,
    paused_until=1200.0,
    delegated_until=9e8,
    peers=(PeerStatus(address=ME, groups=16, reward=0.4),),
    votes=(VoteStatus(round=6, winners=(ME,), phase="done", transactions=("0x12",)),),
    curve=(CurvePoint(5, 1.0, 0.5),),
    totals=Totals(updates=9, external_groups=4),
    refused={"assignment": 2},
)


@asynccontextmanager
async def served(
    home: Path, status: Status = READY, settings: HttpSettings = ANY_PORT
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a free port, give a client for it."""
    counters = {
        "gossip_dropped": {"schema": 3},
        "connections": {"accepted": 4},
        "body_store": {"removed": 2},
        "grading": {"gave_up": 1},
    }
    service = HttpService(settings, home, lambda: status, lambda: counters)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(service.run)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_every_route_answers(tmp_path: Path) -> None:
    """Status is the machine's status, health and readiness are 200, the page is HTML, unknown paths are 404."""
    async with served(tmp_path) as client:
        answers = {path: await client.get(path) for path in ("/", "/livez", "/readyz", "/peers", "/status.json", "/no")}
        posted = await client.post("/status.json")
    codes = {path: answer.status_code for path, answer in answers.items()}
    assert codes == {"/": 200, "/livez": 200, "/readyz": 200, "/peers": 200, "/status.json": 200, "/no": 404}
    assert msgspec.json.decode(answers["/status.json"].content, type=Status) == READY
    assert answers["/readyz"].json() == {"ready": True, "reasons": []}
    assert answers["/peers"].json()["peers"] == [{"address": ME, "groups": 16, "reward": 0.4, "peer_score": 0.0}]
    assert posted.status_code == 405
    assert not (tmp_path / "http.json").exists()


async def test_a_node_that_is_not_ready_says_why(tmp_path: Path) -> None:
    """503 with one reason per thing that is missing."""
    status = msgspec.structs.replace(READY, chain="absent", trainer="unknown", registered=False)
    async with served(tmp_path, status) as client:
        answer = await client.get("/readyz")
        live = await client.get("/livez")
    assert answer.status_code == 503
    assert [reason.split(":")[0] for reason in answer.json()["reasons"]] == ["chain", "trainer", "registration"]
    assert live.status_code == 200


def test_the_first_node_of_a_swarm_is_ready_without_peers() -> None:
    """No connected peer is no reason not to be ready; starting and draining are."""
    alone = msgspec.structs.replace(READY, network="absent", connected=0)
    assert reasons_not_ready(alone) == []
    for phase in ("starting", "syncing", "draining"):
        assert len(reasons_not_ready(msgspec.structs.replace(READY, phase=phase))) == 1


async def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    """Each documented metric is there with its type, all begin with swarm_, values are the status's."""
    async with served(tmp_path) as client:
        answer = await client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {(s.name, *sorted(s.labels.values())): s.value for family in families.values() for s in family.samples}
    assert answer.headers["content-type"].startswith("text/plain")
    assert all(name.startswith("swarm_") for name in families)
    assert values["swarm_round",] == 7
    assert values["swarm_updates_total",] == 9
    assert (values["swarm_paused_until_seconds",], values["swarm_delegated_until_seconds",]) == (1200, 9e8)
    assert values["swarm_phase", "working"] == 1
    assert values["swarm_phase", "idle"] == 0
    assert values["swarm_gossip_dropped_total", "schema"] == 3
    assert values["swarm_bodies_refused_total", "assignment"] == 2
    assert values["swarm_process_resident_memory_bytes",] > 1e6
    for name, kind, _, _ in documented():
        assert name.startswith("swarm_bus") or families[name.removesuffix("_total")].type == kind


def test_every_total_has_a_help_text() -> None:
    """A field added to `Totals` needs its line here, or a counter with labels."""
    assert {*TOTALS, *(each.name for each in LABELLED)} == {field.name for field in msgspec.structs.fields(Totals)}


async def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """One file: no URL to another host, a policy that forbids it, and no way to put markup in from the data."""
    async with served(tmp_path) as client:
        answer = await client.get("/")
    page = answer.text
    assert set(re.findall(r"https?://[^\"' )]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", page)
    assert "innerHTML" not in page
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """The line names the address and the keys to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = HttpService(HttpSettings(port=port), tmp_path, lambda: READY)
        with pytest.raises(HttpListenError, match=rf"127.0.0.1:{port}: .*http.port"):
            await service.run()


async def test_http_json_names_process_and_address(tmp_path: Path) -> None:
    """Whoever reads http.json finds the port actually taken and the process behind it."""
    async with served(tmp_path) as client:
        content: dict[str, Any] = json.loads((tmp_path / "http.json").read_text())
        assert content["url"] == str(client.base_url).rstrip("/")
        assert set(content) == {"url", "pid", "since"}


@pytest.mark.parametrize(
    ("host", "names", "code"),
    [
        ("localhost:8087", (), 200),
        ("[::1]:8087", (), 200),
        ("192.0.2.7", (), 200),
        ("evil.example:8087", (), 421),
        ("localhost.evil.example", (), 421),
        ("Node.example", ("node.Example",), 200),
    ],
)
async def test_a_strange_name_is_not_this_machine(tmp_path: Path, host: str, names: tuple[str, ...], code: int) -> None:
    """On loopback only addresses, localhost and the names that were set are answered: a page may rebind its own."""
    async with served(tmp_path, settings=HttpSettings(port=0, names=names)) as client:
        answer = await client.get("/status.json", headers={"Host": host})
    assert answer.status_code == code
    assert code == 200 or "http.names" in answer.text


async def test_who_serves_everybody_is_asked_under_any_name(tmp_path: Path) -> None:
    """In a container the node is known by its service's name."""
    async with served(tmp_path, settings=HttpSettings(host="0.0.0.0", port=0)) as client:
        assert (await client.get("/livez", headers={"Host": "node:8087"})).status_code == 200
