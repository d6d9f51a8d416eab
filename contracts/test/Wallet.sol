// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// A contract wallet (ERC-1271) for tests: honest, or one of the ways in which one may be hostile.
contract Wallet {
    uint8 public constant HONEST = 0;
    uint8 public constant REFUSING = 1;
    uint8 public constant REVERTING = 2;
    uint8 public constant BURNING = 3;
    uint8 public constant FLOODING = 4;
    uint8 public constant SHORT = 5;

    address private immutable _signer;
    uint8 public manner;

    constructor(address signer, uint8 manner_) {
        _signer = signer;
        manner = manner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (manner == REFUSING) return 0xffffffff;
        if (manner == REVERTING) revert("no");
        while (manner == BURNING) {}
        if (manner == FLOODING) {
            assembly {
                mstore(0, shl(224, 0x1626ba7e))
                return(0, 60000)
            }
        }
        if (manner == SHORT) {
            assembly {
                mstore(0, shl(224, 0x1626ba7e))
                return(0, 4)
            }
        }
        (bytes32 r, bytes32 s) = (bytes32(signature[:32]), bytes32(signature[32:64]));
        return ecrecover(digest, uint8(signature[64]), r, s) == _signer ? bytes4(0x1626ba7e) : bytes4(0);
    }
}
