// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Ballot, COMMITTED, NONE, VOTED, nextBallot, unusedBallot} from "./Ballot.sol";
import {Quorum} from "./Quorum.sol";
import {Register} from "./Register.sol";

/// Votes on a round's winners: sealed (a commitment in the stage after the round's last one, its reveal in the stage
/// after that) or open (the vote itself, in the stage after the round's last one).
///
/// One vote per node and round. Winners are limited in number, ascending, not the voter itself, and eligible in the
/// round. Whether a winner's delegation is still valid is not checked: a winner could otherwise invalidate other
/// nodes' votes by revoking it at the right moment.
///
/// A node submits its own vote, or anybody submits a packed batch (sizes in bytes in brackets):
///   votes         r (32)  vs (32)  count (1)  place (2) * count
///   commitments   r (32)  vs (32)  commitment (32)
///   reveals       node (20)  salt (32)  count (1)  place (2) * count
/// Signatures use the compact form of EIP-2098. Winners are indices into the list of names that comes with the batch.
abstract contract Ballots is Register, Quorum {
    error BadMode(uint8 mode);
    error WrongMode(uint8 mode);
    error WrongStep(uint256 current, uint256 expected);
    error AlreadyVoted();
    error NotCommitted();
    error BadReveal();
    error WinnersOutOfBounds();
    error WinnersNotAscending();
    error WinnerNotCounted();
    error SelfVote();
    error Malformed();

    event VoteCommitted(uint64 indexed round, address indexed node, bytes32 commitment);
    /// Votes, packed one after another: node (20 bytes) count (1) place (2) * count. A place is an index into `names`.
    event VotesCounted(uint64 indexed round, address[] names, bytes votes);

    uint8 public constant SEALED = 0;
    uint8 public constant OPEN = 1;
    uint256 public constant MAX_WINNERS = 16;
    bytes32 public constant COMMIT_DOMAIN = keccak256("SwarmCoordinator.vote.1");

    bytes32 private constant COMMITMENT = keccak256("Commitment(uint64 round,bytes32 seed,bytes32 commitment)");
    bytes32 private constant VOTE = keccak256("Vote(uint64 round,bytes32 seed,address[] winners)");
    uint256 private constant ODD = 1 << 160;
    /// The indices 0 to 15: every winner of a list.
    uint256 private constant ALL = 0x0000000100020003000400050006000700080009000a000b000c000d000e000f;

    uint8 public immutable votingMode;
    uint8 public immutable maxWinners;
    /// With one stage per round, a reveal and the next commitment share a stage, so odd rounds use slots of their own.
    uint256 private immutable _slots;

    /// Keyed by the voter's address, with `_slotOf` in the bits above it.
    mapping(uint256 => Ballot) private _ballots;

    /// The votes of one call, collected for its event.
    struct Count {
        uint256 round;
        bytes32 seed;
        address[] names;
        uint256[MAX_WINNERS] winners;
        bytes log;
        uint256 end;
        uint256 counted;
    }

    constructor(uint8 mode, uint8 winners) {
        if (mode > OPEN) revert BadMode(mode);
        if (winners == 0 || winners > MAX_WINNERS) revert BadLimit(winners, MAX_WINNERS);
        (votingMode, maxWinners, _slots) = (mode, winners, mode == SEALED && stageCount == 1 ? 2 : 1);
    }

    // --- submitted by the node itself -----------------------------------------------------------------------------

    /// Votes in open mode.
    function submitWinners(uint64 round, bytes32 seed, address[] calldata winners) external {
        Count memory count = _start(OPEN, round, winners, 64);
        _mustBeSeed(round, seed);
        (bytes4 reason, bytes32 hash) = _choose(count, winners.length, ALL);
        _must(reason);
        _must(_vote(count, msg.sender, winners.length, ALL, hash));
        _publish(count);
    }

    /// Commits to a vote.
    function commitVote(uint64 round, bytes32 seed, bytes32 commitment) external {
        _mustBeOpen(SEALED, round, 0);
        _mustBeSeed(round, seed);
        _must(_commit(round, msg.sender, commitment));
    }

    /// Reveals a committed vote.
    function revealVote(uint64 round, address[] calldata winners, bytes32 salt) external {
        Count memory count = _start(SEALED, round, winners, 64);
        (bytes4 reason, bytes32 hash) = _choose(count, winners.length, ALL);
        _must(reason);
        _must(_reveal(count, msg.sender, salt, winners.length, ALL, hash));
        _publish(count);
    }

    // --- submitted by anybody -------------------------------------------------------------------------------------

    /// Counts signed votes. Emits `Skipped` for each entry that is invalid or already recorded.
    function submitVotes(uint64 round, address[] calldata names, bytes calldata votes) external {
        Count memory count = _start(OPEN, round, names, votes.length);
        bytes memory form = _form(abi.encode(VOTE, round, count.seed));
        uint256 from;
        for (uint256 place; from < votes.length; ++place) {
            (bytes32 r, bytes32 vs, uint256 amount, uint256 picks) = _entry(votes, from, 64);
            unchecked {
                from += 65 + 2 * amount;
            }
            (bytes4 reason, bytes32 hash) = _choose(count, amount, picks);
            if (from > votes.length) reason = Malformed.selector;
            if (reason == 0) reason = _vote(count, _signer(form, hash, r, vs), amount, picks, hash);
            if (reason != 0) emit Skipped(place, reason);
        }
        _publish(count);
    }

    /// Records signed commitments.
    function commitVotes(uint64 round, bytes calldata commitments) external {
        _mustBeOpen(SEALED, round, 0);
        bytes memory form = _form(abi.encode(COMMITMENT, round, _seed(round)));
        uint256 counted;
        for (uint256 from; from < commitments.length; from += 96) {
            bytes4 reason = Malformed.selector;
            if (from + 96 <= commitments.length) {
                (bytes32 r, bytes32 vs,,) = _entry(commitments, from, 64);
                bytes32 commitment = bytes32(commitments[from + 64:]);
                reason = _commit(round, _signer(form, commitment, r, vs), commitment);
            }
            counted += _isFine(from / 96, reason);
        }
        if (counted == 0) revert NothingCounted();
    }

    /// Counts reveals. They need no signature: only the voter knows the salt.
    function revealVotes(uint64 round, address[] calldata names, bytes calldata reveals) external {
        Count memory count = _start(SEALED, round, names, reveals.length);
        uint256 from;
        for (uint256 place; from < reveals.length; ++place) {
            (bytes32 voter, bytes32 rest, uint256 amount, uint256 picks) = _entry(reveals, from, 52);
            bytes32 salt = voter << 160 | rest >> 96;
            unchecked {
                from += 53 + 2 * amount;
            }
            (bytes4 reason, bytes32 hash) = _choose(count, amount, picks);
            if (from > reveals.length) reason = Malformed.selector;
            if (reason == 0) reason = _reveal(count, address(bytes20(voter)), salt, amount, picks, hash);
            if (reason != 0) emit Skipped(place, reason);
        }
        _publish(count);
    }

    // --- counting -------------------------------------------------------------------------------------------------

    function _mustBeOpen(uint8 mode, uint64 round, uint256 later) private view {
        if (votingMode != mode) revert WrongMode(votingMode);
        uint256 step = _step(_running());
        uint256 expected = (uint256(round) + 1) * stageCount + later;
        if (step != expected) revert WrongStep(step, expected);
    }

    /// Starts counting votes for some of `names`. The entries take `size` bytes, which is more than their log needs.
    function _start(uint8 mode, uint64 round, address[] calldata names, uint256 size)
        private
        view
        returns (Count memory count)
    {
        _mustBeOpen(mode, round, mode == SEALED ? 1 : 0);
        (count.round, count.seed) = (round, _seed(round));
        count.names = new address[](names.length);
        for (uint256 i; i < names.length; ++i) {
            uint256 since = _nodes[names[i]].since;
            if (since != 0 && since <= round) count.names[i] = names[i];
        }
        count.log = new bytes(size + 64);
        count.end = _begin(count.log);
    }

    function _begin(bytes memory log) private pure returns (uint256 first) {
        assembly ("memory-safe") {
            first := add(log, 32)
        }
    }

    /// Reads an entry's first two words, and the count and the indices `offset` bytes after its start.
    function _entry(bytes calldata entries, uint256 from, uint256 offset)
        internal
        pure
        returns (bytes32 first, bytes32 second, uint256 amount, uint256 picks)
    {
        assembly ("memory-safe") {
            let at := add(entries.offset, from)
            first := calldataload(at)
            second := calldataload(add(at, 32))
            amount := byte(0, calldataload(add(at, offset)))
            picks := calldataload(add(at, add(offset, 1)))
        }
    }

    /// Looks up the winners in `picks`, 16 bits each from the top. `hash` is the hash of
    /// `abi.encodePacked(address[])`: one word per winner.
    function _choose(Count memory count, uint256 amount, uint256 picks)
        private
        view
        returns (bytes4 reason, bytes32 hash)
    {
        if (amount == 0 || amount > maxWinners) return (WinnersOutOfBounds.selector, 0);
        bool missing;
        bool unsorted;
        address[] memory names = count.names;
        uint256[MAX_WINNERS] memory winners = count.winners;
        assembly ("memory-safe") {
            let end := add(winners, shl(5, amount))
            let known := mload(names)
            let last := 0
            for { let at := winners } lt(at, end) { at := add(at, 32) } {
                let place := shr(240, picks)
                let winner := mload(add(add(names, 32), shl(5, place))) // beyond the names: `missing`
                picks := shl(16, picks)
                missing := or(missing, iszero(and(lt(place, known), gt(winner, 0))))
                unsorted := or(unsorted, iszero(gt(winner, last)))
                mstore(at, winner)
                last := winner
            }
            hash := keccak256(winners, shl(5, amount))
        }
        if (missing) return (WinnerNotCounted.selector, 0);
        if (unsorted) return (WinnersNotAscending.selector, 0);
    }

    function _vote(Count memory count, address voter, uint256 amount, uint256 picks, bytes32 hash)
        private
        returns (bytes4 reason)
    {
        if (_isChosen(count, voter, amount)) return SelfVote.selector;
        reason = _enter(voter, count.round, VOTED, hash);
        if (reason == 0) _keep(count, voter, amount, picks);
    }

    function _commit(uint256 round, address voter, bytes32 commitment) private returns (bytes4 reason) {
        reason = _enter(voter, round, COMMITTED, commitment);
        if (reason == 0) emit VoteCommitted(uint64(round), voter, commitment);
    }

    function _reveal(Count memory count, address voter, bytes32 salt, uint256 amount, uint256 picks, bytes32 hash)
        private
        returns (bytes4)
    {
        uint256 slot = _slotOf(voter, count.round);
        Ballot ballot = _ballots[slot];
        if (!ballot.isOf(count.round)) return NotCommitted.selector;
        if (ballot.stateOf() == VOTED) return AlreadyVoted.selector;
        if (ballot.expiryOf() <= block.timestamp) return DelegationOver.selector;
        bytes32 said = _commitment(count.round, count.seed, voter, hash, salt);
        if (ballot.commitmentOf() != bytes23(said)) return BadReveal.selector;
        if (_isChosen(count, voter, amount)) return SelfVote.selector;
        _ballots[slot] = ballot.voted();
        _keep(count, voter, amount, picks);
        return 0;
    }

    /// Writes a voter's ballot. The first one copies the expiry from the register; later ones need only this slot.
    function _enter(address voter, uint256 round, uint8 state, bytes32 commitment) private returns (bytes4) {
        uint256 slot = _slotOf(voter, round);
        Ballot last = _ballots[slot];
        uint256 expiry = uint32(Ballot.unwrap(last) >> 40); // `expiryOf`, and `isOf` below, inlined to save gas
        if (expiry == 0) {
            Node memory node = _nodes[voter];
            if (node.since == 0) return NotRegistered.selector;
            if (node.since > round) return NotCounted.selector;
            expiry = node.expiry;
            if (_slots == 2) _ballots[slot ^ ODD] = unusedBallot(expiry);
        }
        if (expiry <= block.timestamp) return DelegationOver.selector;
        if (uint24(Ballot.unwrap(last) >> 16) == round && last.stateOf() != NONE) return AlreadyVoted.selector;
        _ballots[slot] = nextBallot(last, _slots, round, commitment, expiry, state);
        return 0;
    }

    function _slotOf(address voter, uint256 round) private view returns (uint256) {
        return uint160(voter) | (_slots == 2 ? (round & 1) << 160 : 0);
    }

    function _isChosen(Count memory count, address voter, uint256 amount) private pure returns (bool itself) {
        uint256[MAX_WINNERS] memory winners = count.winners;
        assembly ("memory-safe") {
            let at := add(winners, shl(5, amount))
            for {} gt(at, winners) {} {
                at := sub(at, 32)
                itself := or(itself, eq(mload(at), voter))
            }
        }
    }

    /// Appends a vote to the log.
    function _keep(Count memory count, address voter, uint256 amount, uint256 picks) private pure {
        uint256 to = count.end;
        assembly ("memory-safe") {
            mstore(to, or(shl(96, voter), shl(88, amount)))
            mstore(add(to, 21), picks)
        }
        unchecked {
            count.end = to + 21 + 2 * amount;
            ++count.counted;
        }
    }

    function _publish(Count memory count) private {
        if (count.counted == 0) revert NothingCounted();
        bytes memory log = count.log;
        uint256 used = count.end - _begin(log);
        assembly ("memory-safe") {
            mstore(log, used)
        }
        emit VotesCounted(uint64(count.round), count.names, log);
        _countVoters(count.round, count.counted);
    }

    function _expiryChanged(address node, uint32 expiry) internal override {
        for (uint256 i; i < _slots; ++i) {
            uint256 slot = _slotOf(node, i);
            if (_ballots[slot].expiryOf() != 0) _ballots[slot] = _ballots[slot].withExpiry(expiry);
        }
    }

    // --- for the quorum -------------------------------------------------------------------------------------------

    function _lag() internal view override returns (uint256) {
        return 1 + _slots;
    }

    /// Whether a node's vote was counted in the last round whose voting is complete.
    function _votedLately(address node, uint256 round) internal view returns (bool) {
        if (round < _lag()) return false;
        Ballot ballot = _ballots[_slotOf(node, round - 1)];
        if (ballot.isOf(round - 1)) return ballot.follows();
        return ballot.isOf(round - _lag()) && ballot.stateOf() == VOTED;
    }

    // --- views ----------------------------------------------------------------------------------------------------

    /// What a voter commits to. It includes the voter, so a copy is worthless to anybody else.
    function voteCommitment(uint64 round, address voter, address[] calldata winners, bytes32 salt)
        external
        view
        returns (bytes32)
    {
        return _commitment(round, _seed(round), voter, keccak256(abi.encodePacked(winners)), salt);
    }

    function _commitment(uint256 round, bytes32 seed, address voter, bytes32 winners, bytes32 salt)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(COMMIT_DOMAIN, round, seed, voter, winners, salt));
    }

    /// The state (0 none, 1 committed, 2 voted) of a node's vote on one of the last two rounds, and the first 23 bytes
    /// of its commitment (open mode: of the hash of its packed winners).
    function ballotOf(address node, uint64 round) public view returns (uint8 state, bytes23 commitment) {
        Ballot ballot = _ballots[_slotOf(node, round)];
        if (ballot.isOf(round)) return (ballot.stateOf(), ballot.commitmentOf());
    }

    /// `ballotOf` for many nodes: which entries of a batch are already recorded.
    function ballotsOf(address[] calldata many, uint64 round)
        external
        view
        returns (uint8[] memory states, bytes23[] memory commitments)
    {
        (states, commitments) = (new uint8[](many.length), new bytes23[](many.length));
        for (uint256 i; i < many.length; ++i) (states[i], commitments[i]) = ballotOf(many[i], round);
    }
}
