// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// A node's last vote, in one storage slot:
/// commitment (184 bits) | expiry (32) | round (24) | follows a counted vote (8) | state (8).
///
/// `expiry` is copied from the delegation, so a vote reads and writes only this slot; zero means it never voted. Only
/// the first 184 bits of a commitment are kept: finding two votes that share them takes about 2^92 attempts.
type Ballot is uint256;

using {commitmentOf, expiryOf, follows, isOf, stateOf, voted, withExpiry} for Ballot global;

uint8 constant NONE = 0;
uint8 constant COMMITTED = 1;
uint8 constant VOTED = 2;

uint256 constant COMMITMENT_BITS = type(uint256).max << 72;

function commitmentOf(Ballot ballot) pure returns (bytes23) {
    return bytes23(bytes32(Ballot.unwrap(ballot)));
}

function expiryOf(Ballot ballot) pure returns (uint256) {
    return uint32(Ballot.unwrap(ballot) >> 40);
}

/// Whether this vote replaced a counted one on the previous round that could be voted on.
function follows(Ballot ballot) pure returns (bool) {
    return Ballot.unwrap(ballot) & 256 != 0;
}

function stateOf(Ballot ballot) pure returns (uint8) {
    return uint8(Ballot.unwrap(ballot));
}

/// Whether this is a vote on `round`.
function isOf(Ballot ballot, uint256 round) pure returns (bool) {
    uint256 bits = Ballot.unwrap(ballot);
    return uint24(bits >> 16) == round && uint8(bits) != NONE;
}

/// The same ballot, marked as counted.
function voted(Ballot ballot) pure returns (Ballot) {
    return Ballot.wrap(Ballot.unwrap(ballot) & ~uint256(255) | VOTED);
}

function withExpiry(Ballot ballot, uint32 expiry) pure returns (Ballot) {
    return Ballot.wrap(Ballot.unwrap(ballot) & ~(uint256(type(uint32).max) << 40) | uint256(expiry) << 40);
}

function unusedBallot(uint256 expiry) pure returns (Ballot) {
    return Ballot.wrap(expiry << 40);
}

/// The vote on `round` that replaces `last`. `gap` is the number of rounds between two votes in the same slot.
function nextBallot(Ballot last, uint256 gap, uint256 round, bytes32 commitment, uint256 expiry, uint8 state)
    pure
    returns (Ballot)
{
    unchecked {
        uint256 bits = Ballot.unwrap(last);
        bool counted = uint8(bits) == VOTED && uint24(bits >> 16) + gap == round;
        bits = uint256(commitment) & COMMITMENT_BITS | expiry << 40 | round << 16 | state;
        return Ballot.wrap(counted ? bits | 256 : bits);
    }
}
