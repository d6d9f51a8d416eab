"""Graphs of peers: how far apart they are, and a random graph to compare with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from random import Random

Graph = Sequence[set[int]]


def distances(graph: Graph, start: int) -> list[int]:
    """Return the hops from one peer to every other that it reaches."""
    found, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for other in graph[here]:
            if other not in found:
                found[other] = found[here] + 1
                queue.append(other)
    return [hops for peer, hops in found.items() if peer != start]


def mean_path(graph: Graph, starts: Iterable[int]) -> float:
    """Return the mean hops between some peers and all others; each must reach everybody."""
    every = [distances(graph, start) for start in starts]
    assert all(len(found) == len(graph) - 1 for found in every), "the graph is not connected"
    return sum(map(sum, every)) / sum(map(len, every))


def random_graph(peers: int, edges: int, dice: Random) -> Graph:
    """Return a connected random graph of so many peers and edges."""
    graph: list[set[int]] = [set() for _ in range(peers)]
    for peer in range(1, peers):
        join(graph, peer, dice.randrange(peer))
    made = peers - 1
    while made < edges:
        one, other = dice.randrange(peers), dice.randrange(peers)
        if one != other and other not in graph[one]:
            join(graph, one, other)
            made += 1
    return graph


def join(graph: Graph, one: int, other: int) -> None:
    """Add an edge."""
    graph[one].add(other)
    graph[other].add(one)
