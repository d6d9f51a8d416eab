"""Errors inside groups, and as one line."""

from node.errors import describe, first, leaves

NESTED = ExceptionGroup("all", [ExceptionGroup("some", [KeyError("a"), OSError("disk\n full")]), ValueError("last")])


def test_leaves_come_in_order() -> None:
    """Groups are opened at any depth; an error alone is its own leaf."""
    assert [type(each) for each in leaves(NESTED)] == [KeyError, OSError, ValueError]
    alone = ValueError("alone")
    assert list(leaves(alone)) == [alone]


def test_the_first_of_a_kind_is_found() -> None:
    """Subclasses count; None is returned for a kind that is not there."""
    found = first(NESTED, OSError)
    assert isinstance(found, OSError)
    assert isinstance(first(NESTED, Exception), KeyError)
    assert first(NESTED, ZeroDivisionError) is None


def test_a_description_is_one_short_line() -> None:
    """The first error stands for its group; line ends become spaces; an error without a text is its name."""
    assert describe(ExceptionGroup("disk", [OSError("disk\n full")])) == "OSError: disk full"
    assert describe(ValueError()) == "ValueError"
    assert len(describe(ValueError("x" * 1000))) == 300
