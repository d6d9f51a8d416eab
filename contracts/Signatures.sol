// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// EIP-712 digests of this deployment, and who signed them.
abstract contract Signatures {
    error BadSignature();
    error BadNodeSignature();

    uint256 public constant MAX_SIGNATURE_BYTES = 4096;
    /// Gas that a contract wallet may spend on its answer, at the expense of whoever submits its signature.
    uint256 public constant WALLET_GAS = 200_000;

    bytes32 private constant DOMAIN_TYPE = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
    );
    bytes32 private constant NAME = keccak256("SwarmCoordinator");
    bytes32 private constant VERSION = keccak256("1");
    bytes4 private constant IS_VALID_SIGNATURE = 0x1626ba7e;
    /// Half the order of secp256k1: each signature with a higher s has an equivalent one with a lower s (EIP-2).
    uint256 private constant HALF = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    bytes32 private immutable _salt;
    bytes32 private immutable _separator;
    uint256 private immutable _chain;

    /// The salt distinguishes deployments: a local chain that starts afresh repeats chain ids and addresses.
    constructor() {
        bytes32 before = block.number == 0 ? bytes32(0) : blockhash(block.number - 1);
        _salt = keccak256(abi.encode(before, block.timestamp, block.prevrandao, address(this), block.chainid));
        _chain = block.chainid;
        _separator = _separate(_salt);
    }

    /// EIP-5267.
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (hex"1f", "SwarmCoordinator", "1", block.chainid, address(this), _salt, extensions);
    }

    /// The domain separator, recomputed if a fork changed the chain id.
    function _domain() internal view returns (bytes32) {
        return block.chainid == _chain ? _separator : _separate(_salt);
    }

    function _separate(bytes32 salt) private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, block.chainid, address(this), salt));
    }

    function _digest(bytes32 domain, bytes32 message) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, shl(240, 0x1901))
            mstore(add(at, 2), domain)
            mstore(add(at, 34), message)
            digest := keccak256(at, 66)
        }
    }

    /// A template for many messages of one type that differ only in their last member. `head` is the type hash and the
    /// other members; one word for the last member and the parts of the digest follow it.
    function _form(bytes memory head) internal view returns (bytes memory) {
        return bytes.concat(head, bytes32(0), hex"1901", _domain(), bytes32(0));
    }

    /// Who signed a form with this last member, from the short form of EIP-2098; zero where nobody did.
    function _signer(bytes memory form, bytes32 last, bytes32 r, bytes32 vs) internal view returns (address signer) {
        assembly ("memory-safe") {
            let tail := add(form, sub(mload(form), 34)) // 66 bytes before the end, 32 after the length
            mstore(sub(tail, 32), last)
            mstore(add(tail, 34), keccak256(add(form, 32), sub(tail, add(form, 32))))
            let at := mload(0x40)
            let s := and(vs, sub(shl(255, 1), 1))
            mstore(at, keccak256(tail, 66))
            mstore(add(at, 32), add(shr(255, vs), 27))
            mstore(add(at, 64), r)
            mstore(add(at, 96), mul(s, iszero(gt(s, HALF)))) // 0 is no signature
            mstore(0, 0)
            pop(staticcall(gas(), 1, at, 128, 0, 32))
            signer := mload(0)
        }
    }

    /// Who signed, from 65 bytes; zero where nobody did.
    function _signer(bytes32 digest, bytes calldata signature) internal pure returns (address) {
        if (signature.length != 65) return address(0);
        uint256 s = uint256(bytes32(signature[32:64]));
        if (s > HALF) return address(0);
        return ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(s));
    }

    /// Tells whether an account signed: with its key, or as a contract wallet (ERC-1271).
    function _signedBy(address account, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        if (account == address(0)) return false;
        if (_signer(digest, signature) == account) return true;
        return account.code.length != 0 && _walletSays(account, digest, signature);
    }

    function _walletSays(address wallet, bytes32 digest, bytes calldata signature) private view returns (bool) {
        if (signature.length > MAX_SIGNATURE_BYTES) return false;
        bytes memory question = abi.encodeWithSelector(IS_VALID_SIGNATURE, digest, signature);
        bool ok;
        bytes32 answer;
        assembly ("memory-safe") {
            mstore(0, 0) // of the answer, however long, one word is taken
            ok := staticcall(WALLET_GAS, wallet, add(question, 32), mload(question), 0, 32)
            ok := and(ok, gt(returndatasize(), 31))
            answer := mload(0)
        }
        return ok && answer == bytes32(IS_VALID_SIGNATURE);
    }
}
