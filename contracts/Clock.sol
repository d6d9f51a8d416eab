// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// Rounds, stages, seeds, and the pause.
///
/// A round is one pass over a fixed list of stages. Anybody may call `advance` once a stage's deadline has passed.
///
/// Seeds: the last stage of a round opens in some block B. The next round's seed is the hash of block
/// B + anchorBlocks, a choice made before anybody can know that hash. The sender of `advance` cannot influence it;
/// the producer of that one block can bias it by withholding the block.
abstract contract Clock {
    error BadStages();
    error BadLimit(uint256 given, uint256 max);
    error TooEarly(uint64 time, uint64 deadline);
    error SeedNotReady(uint256 block, uint256 anchor);
    error SeedChanged(uint64 round);
    error Paused(uint64 until);

    /// The first stage of a round has opened.
    event RoundAdvanced(uint64 indexed round, bytes32 seed, uint64 deadline);
    /// A later stage of a round has opened.
    event StageAdvanced(uint64 indexed round, uint8 indexed stage, bytes32 seed, uint64 deadline);

    uint256 public constant MAX_STAGES = 16;
    uint256 public constant MAX_STAGE_SECONDS = 30 days;
    uint256 public constant MAX_ANCHOR_BLOCKS = 255;

    /// EIP-2935: hashes of the last 8191 blocks, where the chain has it.
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    /// One storage slot, written once per `advance`. 2^24 rounds of one minute last 31 years.
    struct Time {
        uint24 round;
        uint8 stage;
        uint40 opened;
        uint40 deadline;
        uint40 anchor;
        uint40 pausedUntil;
        uint64 registered;
    }

    uint8 public immutable stageCount;
    uint8 public immutable anchorBlocks;
    uint256 public immutable deployedBlock;
    uint256 private immutable _stageSeconds;
    uint256 private immutable _stageSecondsHigh;

    Time internal _time;
    bytes32[4] private _seeds;

    constructor(uint32[] memory seconds_, uint8 anchor) {
        if (seconds_.length == 0 || seconds_.length > MAX_STAGES) revert BadStages();
        if (anchor == 0) revert BadLimit(anchor, MAX_ANCHOR_BLOCKS);
        uint256[2] memory words;
        for (uint256 i; i < seconds_.length; ++i) {
            if (seconds_[i] == 0 || seconds_[i] > MAX_STAGE_SECONDS) revert BadStages();
            words[i >> 3] |= uint256(seconds_[i]) << ((i & 7) * 32);
        }
        (_stageSeconds, _stageSecondsHigh) = (words[0], words[1]);
        stageCount = uint8(seconds_.length);
        anchorBlocks = anchor;
        deployedBlock = block.number;
        bytes32 before = block.number == 0 ? bytes32(0) : blockhash(block.number - 1);
        bytes32 seed = keccak256(abi.encode(before, address(this)));
        for (uint256 i; i < 4; ++i) _seeds[i] = seed; // so that no later round pays for a first write
        Time memory time;
        _open(time, 0);
        emit RoundAdvanced(0, seed, time.deadline);
    }

    // --- advancing ------------------------------------------------------------------------------------------------

    /// Opens the next stage. Anybody may call it after the deadline, or earlier once a quorum has reported.
    function advance() external {
        Time memory time = _time;
        _mustRun(time);
        if (block.timestamp < time.deadline && !_mayCloseEarly(time)) {
            revert TooEarly(uint64(block.timestamp), time.deadline);
        }
        bool turns = time.stage + 1 == stageCount;
        bytes32 seed = turns ? _drawSeed(time.anchor) : _seed(time.round);
        if (turns) {
            time.round += 1;
            _seeds[time.round & 3] = seed;
        }
        _open(time, turns ? 0 : time.stage + 1);
        if (turns) emit RoundAdvanced(time.round, seed, time.deadline);
        else emit StageAdvanced(time.round, time.stage, seed, time.deadline);
    }

    function _mayCloseEarly(Time memory time) internal view virtual returns (bool);

    function _open(Time memory time, uint256 stage) private {
        unchecked {
            time.stage = uint8(stage);
            time.opened = uint40(block.timestamp);
            time.deadline = uint40(block.timestamp + stageSeconds(stage));
            time.anchor = stage + 1 == stageCount ? uint40(block.number + anchorBlocks) : type(uint40).max;
        }
        _store(time);
    }

    /// Writes the clock's slot in one store; the compiler would write the struct member by member.
    function _store(Time memory time) private {
        uint256 low = time.round | uint256(time.stage) << 24 | uint256(time.opened) << 32;
        uint256 middle = uint256(time.deadline) << 72 | uint256(time.anchor) << 112;
        uint256 word = low | middle | uint256(time.pausedUntil) << 152 | uint256(time.registered) << 192;
        assembly ("memory-safe") {
            sstore(_time.slot, word)
        }
    }

    /// The hash of the anchor block. If it is too old to read: of the latest readable block a multiple of 256 later.
    function _drawSeed(uint256 anchor) private view returns (bytes32 hash) {
        if (block.number <= anchor) revert SeedNotReady(block.number, anchor);
        hash = blockhash(anchor);
        if (hash == 0) hash = _history(anchor);
        if (hash == 0) hash = blockhash(anchor + ((block.number - 1 - anchor) & ~uint256(255)));
        hash = keccak256(abi.encode(hash, address(this)));
    }

    function _history(uint256 number) private view returns (bytes32) {
        (bool ok, bytes memory out) = HISTORY.staticcall(abi.encode(number));
        return ok && out.length == 32 ? bytes32(out) : bytes32(0);
    }

    // --- internal -------------------------------------------------------------------------------------------------

    /// The clock; reverts while paused.
    function _running() internal view returns (Time memory time) {
        time = _time;
        _mustRun(time);
    }

    function _mustRun(Time memory time) private view {
        if (block.timestamp < time.pausedUntil) revert Paused(time.pausedUntil);
    }

    /// The first round in which a node that registers now is eligible: the next one, or the one after it if the next
    /// seed may be known already. Otherwise one could generate keys until one gets easy questions.
    function _nextRound(Time memory time) internal view returns (uint24) {
        return time.round + (block.number >= time.anchor ? 2 : 1);
    }

    /// The seed of the current round or one of the three before it.
    function _seed(uint256 round) internal view returns (bytes32) {
        return _seeds[round & 3];
    }

    function _mustBeSeed(uint64 round, bytes32 seed) internal view {
        if (seed != _seed(round)) revert SeedChanged(round);
    }

    // --- views ----------------------------------------------------------------------------------------------------

    function current()
        external
        view
        returns (uint64 round, uint8 stage, bytes32 seed, uint64 deadline, uint64 opened)
    {
        Time memory time = _time;
        return (time.round, time.stage, _seed(time.round), time.deadline, time.opened);
    }

    /// The seed of the current round or one of the three before it; zero for any other.
    function seedOf(uint64 round) external view returns (bytes32) {
        uint256 now_ = _time.round;
        return round <= now_ && uint256(round) + 4 > now_ ? _seed(round) : bytes32(0);
    }

    function stageSeconds(uint256 stage) public view returns (uint32) {
        if (stage >= stageCount) revert BadLimit(stage, stageCount);
        return uint32((stage < 8 ? _stageSeconds : _stageSecondsHigh) >> ((stage & 7) * 32));
    }

    function registeredCount() external view returns (uint64) {
        return _time.registered;
    }

    /// The block whose hash becomes the next seed; the maximum value while none is chosen.
    function anchorBlock() external view returns (uint40) {
        return _time.anchor;
    }

    /// When the pause ends; zero or in the past if the swarm is not paused.
    function pausedUntil() external view returns (uint64) {
        return _time.pausedUntil;
    }
}
