// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Clock} from "./Clock.sol";
import {Signatures} from "./Signatures.sol";

/// Nodes and their owners. A node is identified by the address of its key.
///
/// Everything here is a signed message that anybody may submit, so an owner needs no funds on this chain. In a batch,
/// an invalid entry is reported by `Skipped` and does not affect the others.
abstract contract Register is Clock, Signatures {
    error NotRegistered();
    error NotCounted();
    error DelegationOver();
    error OldSerial();
    error BadSerial();
    error OtherOwner();
    error RegistrationsPaused();
    error NothingCounted();

    event PeerRegistered(address indexed node, address indexed owner, uint64 since, uint64 expiry);
    event DelegationRenewed(address indexed node, address indexed owner, uint64 expiry);
    event DelegationRevoked(address indexed node, address indexed owner);
    /// The entry of a batch at this place was not counted; `reason` is the selector of an error.
    event Skipped(uint256 place, bytes4 reason);

    struct Delegation {
        address owner;
        address node;
        uint64 serial;
        uint64 expiry;
    }

    struct SignedDelegation {
        Delegation delegation;
        bytes ownerSignature;
        bytes nodeSignature;
    }

    struct Revocation {
        address owner;
        address node;
        uint64 serial;
    }

    struct SignedRevocation {
        Revocation revocation;
        bytes ownerSignature;
    }

    /// One storage slot. `expiry`: chain seconds, the maximum means never. `serial`: milliseconds since `ERA`.
    struct Node {
        address owner;
        uint24 since;
        uint32 expiry;
        uint40 serial;
    }

    /// 2025-01-01 in milliseconds. Serials fit until 2059.
    uint256 public constant ERA = 1_735_689_600_000;
    /// How many milliseconds a signer's clock may be ahead: a serial in the far future would lock its owner out.
    uint256 public constant MAX_AHEAD = 1 days * 1000;

    bytes32 private constant DELEGATION =
        keccak256("Delegation(address owner,address node,uint64 serial,uint64 expiry)");
    bytes32 private constant REVOCATION = keccak256("Revocation(address owner,address node,uint64 serial)");

    mapping(address => Node) internal _nodes;

    // --- delegations ----------------------------------------------------------------------------------------------

    /// Registers a node, or renews a registered node's delegation. Owner and node both sign a registration (one
    /// signature if they are the same key); only the owner signs a renewal.
    function register(SignedDelegation calldata signed) external {
        if (_nodes[signed.delegation.node].since == 0) _running();
        _must(_delegate(signed));
    }

    function registerMany(SignedDelegation[] calldata many) external returns (uint256 counted) {
        for (uint256 i; i < many.length; ++i) counted += _isFine(i, _delegate(many[i]));
        if (counted == 0) revert NothingCounted();
    }

    /// Ends a delegation at once. Signed by the owner.
    function revoke(SignedRevocation calldata signed) external {
        _must(_revoke(signed));
    }

    function revokeMany(SignedRevocation[] calldata many) external returns (uint256 counted) {
        for (uint256 i; i < many.length; ++i) counted += _isFine(i, _revoke(many[i]));
        if (counted == 0) revert NothingCounted();
    }

    function _delegate(SignedDelegation calldata signed) private returns (bytes4) {
        Delegation calldata said = signed.delegation;
        Node memory node = _nodes[said.node];
        bool isNew = node.since == 0;
        if (isNew && block.timestamp < _time.pausedUntil) return RegistrationsPaused.selector;
        if (said.expiry <= block.timestamp) return DelegationOver.selector;
        bytes4 reason = _checkSerial(node, said.owner, said.serial);
        if (reason != 0) return reason;
        bytes32 digest = _digest(
            _domain(), keccak256(abi.encode(DELEGATION, said.owner, said.node, said.serial, said.expiry))
        );
        if (said.owner == said.node || isNew) {
            bytes calldata proof = said.owner == said.node ? signed.ownerSignature : signed.nodeSignature;
            if (said.node == address(0) || _signer(digest, proof) != said.node) return BadNodeSignature.selector;
        }
        if (said.owner != said.node && !_signedBy(said.owner, digest, signed.ownerSignature)) {
            return BadSignature.selector;
        }
        node.serial = uint40(said.serial - ERA);
        node.expiry = said.expiry > type(uint32).max ? type(uint32).max : uint32(said.expiry);
        if (isNew) _add(said, node);
        else _change(said.node, node);
        if (!isNew) emit DelegationRenewed(said.node, said.owner, node.expiry);
        return 0;
    }

    function _add(Delegation calldata said, Node memory node) private {
        Time memory time = _time;
        node.owner = said.owner;
        node.since = _nextRound(time);
        _nodes[said.node] = node;
        _time.registered = time.registered + 1;
        emit PeerRegistered(said.node, said.owner, node.since, node.expiry);
    }

    function _revoke(SignedRevocation calldata signed) private returns (bytes4) {
        Revocation calldata said = signed.revocation;
        Node memory node = _nodes[said.node];
        if (node.since == 0) return NotRegistered.selector;
        bytes4 reason = _checkSerial(node, said.owner, said.serial);
        if (reason != 0) return reason;
        bytes32 digest = _digest(_domain(), keccak256(abi.encode(REVOCATION, said.owner, said.node, said.serial)));
        if (!_signedBy(said.owner, digest, signed.ownerSignature)) return BadSignature.selector;
        node.serial = uint40(said.serial - ERA);
        node.expiry = uint32(block.timestamp);
        _change(said.node, node);
        emit DelegationRevoked(said.node, said.owner);
        return 0;
    }

    function _checkSerial(Node memory node, address owner, uint64 serial) private view returns (bytes4) {
        if (serial <= ERA || serial > block.timestamp * 1000 + MAX_AHEAD) return BadSerial.selector;
        if (serial - ERA > type(uint40).max) return BadSerial.selector;
        if (node.since == 0) return 0;
        if (node.owner != owner) return OtherOwner.selector;
        if (serial - ERA > node.serial) return 0;
        return node.expiry <= block.timestamp ? DelegationOver.selector : OldSerial.selector;
    }

    function _change(address name, Node memory node) private {
        _nodes[name] = node;
        _expiryChanged(name, node.expiry);
    }

    /// A hook for contracts that keep copies of the expiry.
    function _expiryChanged(address node, uint32 expiry) internal virtual;

    // --- internal -------------------------------------------------------------------------------------------------

    /// Reverts with the error that has this selector, unless it is zero.
    function _must(bytes4 reason) internal pure {
        if (reason == 0) return;
        assembly ("memory-safe") {
            mstore(0, reason)
            revert(0, 4)
        }
    }

    /// Returns 1 for a valid entry of a batch; for any other emits `Skipped` and returns 0.
    function _isFine(uint256 place, bytes4 reason) internal returns (uint256) {
        if (reason == 0) return 1;
        emit Skipped(place, reason);
        return 0;
    }

    // --- views ----------------------------------------------------------------------------------------------------

    /// A node's owner, the first round in which it is eligible, the end of its delegation (chain seconds) and its last
    /// serial (milliseconds). All zero if it is not registered.
    function nodes(address name) external view returns (address owner, uint64 since, uint64 expiry, uint64 serial) {
        Node memory node = _nodes[name];
        if (node.since == 0) return (address(0), 0, 0, 0);
        return (node.owner, node.since, node.expiry, uint64(node.serial + ERA));
    }
}
