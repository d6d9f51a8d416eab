// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Clock} from "./Clock.sol";

/// What the organiser may do: name bootnodes, announce a manifest, pause for a limited time, and delegate or transfer
/// these rights. It cannot vote, choose seeds or change a node's entry.
abstract contract Organiser is Clock {
    error NotAllowed(address sender);
    error NotOffered(address sender);
    error BootnodesFull(uint256 max);
    error BadBootnode();
    error UnknownBootnode();
    error PausedLately(uint64 from);
    error NotPaused();

    event BootnodeAdded(string bootnode);
    event BootnodeRemoved(string bootnode);
    event ManifestChanged(bytes32 digest, uint64 fromRound);
    event OrganiserOffered(address indexed organiser, address indexed candidate);
    event OrganiserChanged(address indexed organiser);
    event RolesChanged(address indexed account, uint8 roles);
    event PauseChanged(uint64 until, uint64 deadline);

    uint8 public constant BOOTNODES = 1;
    uint8 public constant MANIFEST = 2;
    uint256 public constant MAX_BOOTNODES = 32;
    uint256 public constant MAX_BOOTNODE_BYTES = 256;
    uint256 public constant MAX_PAUSE = 1 days;
    /// Minimum number of seconds between two pauses.
    uint256 public constant MIN_RUN = 3 days;

    bytes32 private _manifest;
    bytes32 private _nextManifest;
    uint64 private _nextManifestRound;

    address public organiser;
    address public organiserCandidate;
    /// Rights that can be granted to others, as bits.
    mapping(address => uint8) public roles;
    string[] private _bootnodes;

    modifier only(uint8 role) {
        if (msg.sender != organiser && roles[msg.sender] & role == 0) revert NotAllowed(msg.sender);
        _;
    }

    constructor(bytes32 manifest) {
        organiser = msg.sender;
        _manifest = manifest;
        emit OrganiserChanged(msg.sender);
        emit ManifestChanged(manifest, 0);
    }

    // --- bootnodes ------------------------------------------------------------------------------------------------

    function addBootnode(string calldata bootnode) external only(BOOTNODES) {
        uint256 size = bytes(bootnode).length;
        if (size == 0 || size > MAX_BOOTNODE_BYTES) revert BadBootnode();
        if (_bootnodes.length == MAX_BOOTNODES) revert BootnodesFull(MAX_BOOTNODES);
        if (_indexOf(bootnode) != _bootnodes.length) revert BadBootnode();
        _bootnodes.push(bootnode);
        emit BootnodeAdded(bootnode);
    }

    function removeBootnode(string calldata bootnode) external only(BOOTNODES) {
        uint256 index = _indexOf(bootnode);
        uint256 last = _bootnodes.length;
        if (index == last) revert UnknownBootnode();
        if (index + 1 != last) _bootnodes[index] = _bootnodes[last - 1];
        _bootnodes.pop();
        emit BootnodeRemoved(bootnode);
    }

    function _indexOf(string calldata bootnode) private view returns (uint256 index) {
        bytes32 wanted = keccak256(bytes(bootnode));
        while (index < _bootnodes.length && keccak256(bytes(_bootnodes[index])) != wanted) ++index;
    }

    // --- manifest -------------------------------------------------------------------------------------------------

    /// Announces a new manifest, in force from the round after the next one.
    function setManifest(bytes32 digest) external only(MANIFEST) {
        _manifest = manifestDigest();
        _nextManifest = digest;
        _nextManifestRound = _time.round + 2;
        emit ManifestChanged(digest, _nextManifestRound);
    }

    // --- pause ----------------------------------------------------------------------------------------------------

    /// Stops the clock, votes, rewards and registrations. The pause ends by itself, and the open stage then has as much
    /// time left as now. Renewals and revocations are still accepted.
    function pause(uint32 seconds_) external only(0) {
        Time memory time = _time;
        uint256 from = time.pausedUntil == 0 ? 0 : time.pausedUntil + MIN_RUN;
        if (seconds_ == 0 || seconds_ > MAX_PAUSE) revert BadLimit(seconds_, MAX_PAUSE);
        if (block.timestamp < from) revert PausedLately(uint64(from));
        time.pausedUntil = uint40(block.timestamp) + seconds_;
        if (block.timestamp < time.deadline) time.deadline += seconds_;
        _time = time;
        emit PauseChanged(time.pausedUntil, time.deadline);
    }

    /// Ends the pause early.
    function resume() external only(0) {
        Time memory time = _time;
        if (block.timestamp >= time.pausedUntil) revert NotPaused();
        uint40 left = time.pausedUntil - uint40(block.timestamp);
        if (time.deadline > time.pausedUntil) time.deadline -= left; // the pause had extended it
        time.pausedUntil = uint40(block.timestamp);
        _time = time;
        emit PauseChanged(time.pausedUntil, time.deadline);
    }

    // --- roles ----------------------------------------------------------------------------------------------------

    function setRoles(address account, uint8 roles_) external only(0) {
        roles[account] = roles_;
        emit RolesChanged(account, roles_);
    }

    function offerOrganiser(address candidate) external only(0) {
        organiserCandidate = candidate;
        emit OrganiserOffered(organiser, candidate);
    }

    function acceptOrganiser() external {
        if (msg.sender != organiserCandidate) revert NotOffered(msg.sender);
        organiser = msg.sender;
        organiserCandidate = address(0);
        emit OrganiserChanged(msg.sender);
    }

    // --- views ----------------------------------------------------------------------------------------------------

    function manifestDigest() public view returns (bytes32) {
        return _nextManifestRound != 0 && _time.round >= _nextManifestRound ? _nextManifest : _manifest;
    }

    function nextManifest() external view returns (bytes32 digest, uint64 fromRound) {
        return (_nextManifest, _nextManifestRound);
    }

    function bootnodes() external view returns (string[] memory) {
        return _bootnodes;
    }
}
