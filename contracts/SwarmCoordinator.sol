// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Ballots} from "./Ballots.sol";
import {Clock} from "./Clock.sol";
import {Organiser} from "./Organiser.sol";
import {Quorum} from "./Quorum.sol";
import {Rewards} from "./Rewards.sol";

/// The clock, the register and the ballot box of one swarm.
///
/// No function loops over users, only over what its caller hands in: cost does not grow with the swarm. There is no
/// money here, and no way to change the code.
contract SwarmCoordinator is Rewards, Organiser {
    /// @param seconds_ how long each stage of a round lasts
    /// @param manifest digest of the swarm's manifest
    /// @param mode 0 sealed (commit, then reveal), 1 open
    /// @param winners the most winners a vote may name
    /// @param anchor blocks after the opening of a round's last stage whose hash becomes the next seed; choose about
    ///        half of that stage. Until it is mined, `advance` into the next round waits.
    /// @param quorum percent of last round's voters that close a stage early; 0 for never
    /// @param earliest seconds that a stage lasts at least where it closes early; 0 with `quorum` 0
    constructor(
        uint32[] memory seconds_,
        bytes32 manifest,
        uint8 mode,
        uint8 winners,
        uint8 anchor,
        uint8 quorum,
        uint32 earliest
    ) Clock(seconds_, anchor) Quorum(quorum, earliest) Ballots(mode, winners) Organiser(manifest) {}
}
