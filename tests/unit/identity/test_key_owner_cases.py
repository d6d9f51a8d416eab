"""The four cases of key and owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.exits import MEANING, Exit, Refusal
from node.identity.key_owner_cases import EXIT, KeyOwnerCase, OwnershipFacts, case_of, line, refuse_other_owner

NODE, OWNER, OTHER = (f"0x{number:040x}" for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("claimed", "registered", "siblings", "case", "code"),
    [
        (OWNER, None, 0, KeyOwnerCase.NEW_NODE, Exit.NEW_NODE),
        (None, None, 0, KeyOwnerCase.NEW_NODE, Exit.NEW_NODE),
        (OWNER, OWNER, 3, KeyOwnerCase.SAME, Exit.OK),
        (None, OWNER, 0, KeyOwnerCase.SAME, Exit.OK),
        (OWNER, OTHER, 0, KeyOwnerCase.OTHER_OWNER, Exit.OTHER_OWNER),
        (OWNER, None, 2, KeyOwnerCase.SECOND_NODE, Exit.SECOND_NODE),
    ],
)
def test_each_case_has_its_code(
    claimed: str | None, registered: str | None, siblings: int, case: KeyOwnerCase, code: Exit
) -> None:
    """Key and owner, known or not, give one of four cases; a restart without a delegation at hand is no other owner."""
    facts = OwnershipFacts(node=NODE, claimed=claimed, registered=registered, siblings=siblings)
    assert case_of(facts) is case
    assert EXIT[case] is code
    assert code in MEANING


@given(st.sampled_from([None, OWNER, OTHER, NODE]), st.sampled_from([None, OWNER, OTHER, NODE]), st.integers(0, 5))
def test_each_case_is_one_line_that_names_the_node(claimed: str | None, registered: str | None, siblings: int) -> None:
    """Whatever the facts, the operator reads one line; where another owner is registered it names that one."""
    facts = OwnershipFacts(node=NODE, claimed=claimed, registered=registered, siblings=siblings)
    assert NODE in line(facts)
    assert "\n" not in line(facts)
    if case_of(facts) is KeyOwnerCase.OTHER_OWNER:
        with pytest.raises(Refusal, match=str(registered)) as refused:
            refuse_other_owner(facts)
        assert refused.value.code is Exit.OTHER_OWNER
    else:
        refuse_other_owner(facts)


def test_the_codes_differ() -> None:
    """A script can tell the cases apart."""
    assert len(set(EXIT.values())) == len(KeyOwnerCase)
