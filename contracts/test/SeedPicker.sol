// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

interface Coordinator {
    function advance() external;
    function current() external view returns (uint64, uint8, bytes32, uint64, uint64);
}

/// Turns the clock only where the new seed is to its liking: whoever could choose seeds would do so like this.
contract SeedPicker {
    error NotToMyLiking();

    function advanceIfLucky(Coordinator coordinator, uint8 unwanted) external {
        coordinator.advance();
        (,, bytes32 seed,,) = coordinator.current();
        if (uint8(uint256(seed)) == unwanted) revert NotToMyLiking();
    }
}
