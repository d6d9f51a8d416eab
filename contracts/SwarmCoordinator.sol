// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// The clock, the register and the ballot box of one swarm.
///
/// Nodes are known by the address of their key. Rounds are passes over a fixed list of stages; whoever likes turns
/// the clock once a stage's deadline has passed. No function loops over users: cost does not grow with the swarm.
///
/// Seeds: the last stage of a round opens in some block B; the next round's seed is the hash of block
/// B + anchorBlocks, which is fixed before anybody can know it. The sender of `advance` cannot choose it; the
/// producer of that one block can bias it by withholding the block.
contract SwarmCoordinator {
    // --- errors ---------------------------------------------------------------------------------------------------

    error BadStages();
    error BadMode(uint8 mode);
    error BadLimit(uint256 given, uint256 max);
    error TooEarly(uint64 time, uint64 deadline);
    error SeedNotReady(uint256 block, uint256 anchor);
    error AlreadyRegistered(address node);
    error NotRegistered(address node);
    error NotCounted(address node, uint64 since, uint64 round);
    error WrongMode(uint8 mode);
    error WrongStep(uint256 current, uint256 expected);
    error WrongRound(uint64 given, uint64 current);
    error WrongStage(uint8 given, uint8 current);
    error AlreadyVoted(uint64 round, address node);
    error NotCommitted(uint64 round, address node);
    error BadReveal(uint64 round, address node);
    error WinnersOutOfBounds(uint256 given, uint256 max);
    error WinnersNotAscending(address winner);
    error SelfVote(address node);
    error RewardAlreadySubmitted(uint64 round, uint8 stage, address node);
    error NotOrganiser(address sender);
    error NotOffered(address sender);
    error BootnodesFull(uint256 max);
    error BadBootnode();
    error UnknownBootnode();

    // --- events ---------------------------------------------------------------------------------------------------

    event RoundAdvanced(uint64 indexed round, bytes32 seed, uint64 deadline);
    event StageAdvanced(uint64 indexed round, uint8 indexed stage, bytes32 seed, uint64 deadline);
    event PeerRegistered(address indexed node, address indexed owner, uint64 since);
    event VoteCommitted(uint64 indexed round, address indexed node, bytes32 commitment);
    event WinnersSubmitted(uint64 indexed round, address indexed node, address[] winners);
    event RewardSubmitted(uint64 indexed round, uint8 indexed stage, address indexed node, int256 reward);
    event BootnodeAdded(string bootnode);
    event BootnodeRemoved(string bootnode);
    event ManifestChanged(bytes32 digest, uint64 fromRound);
    event OrganiserOffered(address indexed organiser, address indexed candidate);
    event OrganiserChanged(address indexed organiser);

    // --- constants ------------------------------------------------------------------------------------------------

    uint8 public constant SEALED = 0;
    uint8 public constant OPEN = 1;
    uint256 public constant MAX_STAGES = 16;
    uint256 public constant MAX_STAGE_SECONDS = 30 days;
    uint256 public constant MAX_WINNERS = 16;
    uint256 public constant MAX_ANCHOR_BLOCKS = 255;
    uint256 public constant MAX_BOOTNODES = 32;
    uint256 public constant MAX_BOOTNODE_BYTES = 256;
    bytes32 public constant COMMIT_DOMAIN = keccak256("SwarmCoordinator.vote.1");

    /// EIP-2935: hashes of the last 8191 blocks, where the chain has it.
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    uint8 private constant NONE = 0;
    uint8 private constant COMMITTED = 1;
    uint8 private constant VOTED = 2;

    // --- state ----------------------------------------------------------------------------------------------------

    /// One storage slot: whoever turns the clock writes it once.
    struct Clock {
        uint64 round;
        uint64 deadline;
        uint64 opened;
        uint32 registered;
        uint8 stage;
    }

    struct Node {
        address owner;
        uint64 since;
    }

    struct Ballot {
        bytes32 commitment;
        uint64 round;
        uint8 state;
    }

    struct RewardMarks {
        uint64 round;
        uint16 stages;
    }

    uint8 public immutable votingMode;
    uint8 public immutable stageCount;
    uint8 public immutable maxWinners;
    uint8 public immutable anchorBlocks;
    uint256 public immutable deployedBlock;

    Clock private _clock;
    uint256 private _anchor;
    uint256 private _stageSeconds;
    uint256 private _stageSecondsHigh;
    bytes32[4] private _seeds;

    bytes32 private _manifest;
    bytes32 private _nextManifest;
    uint64 private _nextManifestRound;

    address public organiser;
    address public organiserCandidate;
    string[] private _bootnodes;

    mapping(address => Node) public nodes;
    mapping(address => Ballot[2]) private _ballots;
    mapping(address => RewardMarks[2]) private _rewarded;

    modifier onlyOrganiser() {
        if (msg.sender != organiser) revert NotOrganiser(msg.sender);
        _;
    }

    // --- deployment -----------------------------------------------------------------------------------------------

    /// @param seconds_ how long each stage of a round lasts
    /// @param manifest digest of the swarm's manifest
    /// @param mode 0 sealed (commit, then reveal), 1 open
    /// @param winners the most winners a vote may name
    /// @param anchor blocks after the opening of a round's last stage whose hash becomes the next seed; choose about
    ///        half of that stage. Until it is mined, `advance` into the next round waits.
    constructor(uint32[] memory seconds_, bytes32 manifest, uint8 mode, uint8 winners, uint8 anchor) {
        if (seconds_.length == 0 || seconds_.length > MAX_STAGES) revert BadStages();
        if (mode > OPEN) revert BadMode(mode);
        if (winners == 0 || winners > MAX_WINNERS) revert BadLimit(winners, MAX_WINNERS);
        if (anchor == 0) revert BadLimit(anchor, MAX_ANCHOR_BLOCKS);
        votingMode = mode;
        stageCount = uint8(seconds_.length);
        maxWinners = winners;
        anchorBlocks = anchor;
        deployedBlock = block.number;
        organiser = msg.sender;
        _manifest = manifest;
        _packStages(seconds_);
        emit OrganiserChanged(msg.sender);
        emit ManifestChanged(manifest, 0);
        bytes32 before = block.number == 0 ? bytes32(0) : blockhash(block.number - 1);
        _seeds[0] = keccak256(abi.encode(before, address(this)));
        _open(0, 0, uint8(seconds_.length), seconds_[0]);
    }

    function _packStages(uint32[] memory seconds_) private {
        uint256[2] memory words;
        for (uint256 i; i < seconds_.length; ++i) {
            if (seconds_[i] == 0 || seconds_[i] > MAX_STAGE_SECONDS) revert BadStages();
            words[i >> 3] |= uint256(seconds_[i]) << ((i & 7) * 32);
        }
        _stageSeconds = words[0];
        if (words[1] != 0) _stageSecondsHigh = words[1];
    }

    // --- clock ----------------------------------------------------------------------------------------------------

    /// Opens the next stage. Anybody may call it from the deadline on.
    function advance() external {
        uint64 round = _clock.round;
        uint8 stage = _clock.stage + 1;
        uint64 deadline = _clock.deadline;
        if (block.timestamp < deadline) revert TooEarly(uint64(block.timestamp), deadline);
        if (stage == stageCount) {
            stage = 0;
            round += 1;
            _seeds[round & 3] = _drawSeed();
        }
        _open(round, stage, stageCount, stageSeconds(stage));
    }

    function _open(uint64 round, uint8 stage, uint8 stages, uint32 lasts) private {
        uint64 deadline = uint64(block.timestamp) + lasts;
        _clock.round = round;
        _clock.stage = stage;
        _clock.opened = uint64(block.timestamp);
        _clock.deadline = deadline;
        _anchor = stage + 1 == stages ? block.number + anchorBlocks : type(uint256).max;
        bytes32 seed = _seeds[round & 3];
        if (stage == 0) emit RoundAdvanced(round, seed, deadline);
        emit StageAdvanced(round, stage, seed, deadline);
    }

    /// The hash of the anchor. Where the chain no longer tells it: of the last block at a multiple of 256 after it.
    function _drawSeed() private view returns (bytes32 hash) {
        uint256 anchor = _anchor;
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

    // --- nodes ----------------------------------------------------------------------------------------------------

    /// Makes the sender a node, its own owner. It counts from the next round on; from the one after where the next
    /// seed may be known already, so that nobody makes keys until one gets easy questions.
    function register() external {
        if (nodes[msg.sender].since != 0) revert AlreadyRegistered(msg.sender);
        uint64 since = _clock.round + (block.number >= _anchor ? 2 : 1);
        nodes[msg.sender] = Node(msg.sender, since);
        _clock.registered += 1;
        emit PeerRegistered(msg.sender, msg.sender, since);
    }

    function _mustCount(address node, uint64 round) private view {
        uint64 since = nodes[node].since;
        if (since == 0) revert NotRegistered(node);
        if (since > round) revert NotCounted(node, since, round);
    }

    // --- votes ----------------------------------------------------------------------------------------------------

    /// Commits to a vote on `round`, in the stage after its last one.
    function commitVote(uint64 round, bytes32 commitment) external {
        Ballot storage ballot = _openBallot(round, SEALED);
        ballot.round = round;
        ballot.state = COMMITTED;
        ballot.commitment = commitment;
        emit VoteCommitted(round, msg.sender, commitment);
    }

    /// Reveals a committed vote, in the stage after the one for commitments.
    function revealVote(uint64 round, address[] calldata winners, bytes32 salt) external {
        if (votingMode != SEALED) revert WrongMode(votingMode);
        _mustBeStep(uint256(round) + 1, 1);
        Ballot storage ballot = _ballots[msg.sender][round & 1];
        if (ballot.round != round || ballot.state == NONE) revert NotCommitted(round, msg.sender);
        if (ballot.state == VOTED) revert AlreadyVoted(round, msg.sender);
        if (ballot.commitment != voteCommitment(round, msg.sender, winners, salt)) revert BadReveal(round, msg.sender);
        ballot.state = VOTED;
        _submit(round, winners);
    }

    /// Votes in the open mode, in the stage after the round's last one.
    function submitWinners(uint64 round, address[] calldata winners) external {
        Ballot storage ballot = _openBallot(round, OPEN);
        ballot.round = round;
        ballot.state = VOTED;
        ballot.commitment = keccak256(abi.encodePacked(winners));
        _submit(round, winners);
    }

    function _openBallot(uint64 round, uint8 mode) private view returns (Ballot storage ballot) {
        if (votingMode != mode) revert WrongMode(votingMode);
        _mustBeStep(uint256(round) + 1, 0);
        _mustCount(msg.sender, round);
        ballot = _ballots[msg.sender][round & 1];
        if (ballot.round == round && ballot.state != NONE) revert AlreadyVoted(round, msg.sender);
    }

    function _mustBeStep(uint256 round, uint256 later) private view {
        uint256 now_ = uint256(_clock.round) * stageCount + _clock.stage;
        uint256 expected = round * stageCount + later;
        if (now_ != expected) revert WrongStep(now_, expected);
    }

    function _submit(uint64 round, address[] calldata winners) private {
        if (winners.length == 0 || winners.length > maxWinners) revert WinnersOutOfBounds(winners.length, maxWinners);
        address last;
        for (uint256 i; i < winners.length; ++i) {
            address winner = winners[i];
            if (winner <= last) revert WinnersNotAscending(winner);
            if (winner == msg.sender) revert SelfVote(winner);
            _mustCount(winner, round);
            last = winner;
        }
        emit WinnersSubmitted(round, msg.sender, winners);
    }

    /// What a voter commits to. It names the voter, so a copy is worth nothing to anybody else.
    function voteCommitment(uint64 round, address voter, address[] calldata winners, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        bytes32 packed = keccak256(abi.encodePacked(winners));
        return keccak256(abi.encode(COMMIT_DOMAIN, uint256(round), _seeds[round & 3], voter, packed, salt));
    }

    /// The state (0 none, 1 committed, 2 voted) of a node's vote on one of the last two rounds, and its commitment
    /// (open mode: the hash of its packed winners).
    function ballotOf(address node, uint64 round) external view returns (uint8 state, bytes32 commitment) {
        Ballot storage ballot = _ballots[node][round & 1];
        if (ballot.round == round) return (ballot.state, ballot.commitment);
    }

    // --- rewards --------------------------------------------------------------------------------------------------

    /// Publishes the sender's own reward of a stage of the current or the previous round, in millionths.
    function submitReward(uint64 round, uint8 stage, int256 reward) external {
        uint64 current_ = _clock.round;
        if (round > current_ || round + 1 < current_) revert WrongRound(round, current_);
        uint8 newest = round == current_ ? _clock.stage : stageCount - 1;
        if (stage > newest) revert WrongStage(stage, newest);
        _mustCount(msg.sender, round);
        RewardMarks memory marks = _rewarded[msg.sender][round & 1];
        uint16 bit = uint16(1 << stage);
        if (marks.round != round) marks = RewardMarks(round, 0);
        if (marks.stages & bit != 0) revert RewardAlreadySubmitted(round, stage, msg.sender);
        marks.stages |= bit;
        _rewarded[msg.sender][round & 1] = marks;
        emit RewardSubmitted(round, stage, msg.sender, reward);
    }

    // --- organiser ------------------------------------------------------------------------------------------------

    function addBootnode(string calldata bootnode) external onlyOrganiser {
        uint256 size = bytes(bootnode).length;
        if (size == 0 || size > MAX_BOOTNODE_BYTES) revert BadBootnode();
        if (_bootnodes.length == MAX_BOOTNODES) revert BootnodesFull(MAX_BOOTNODES);
        if (_indexOf(bootnode) != _bootnodes.length) revert BadBootnode();
        _bootnodes.push(bootnode);
        emit BootnodeAdded(bootnode);
    }

    function removeBootnode(string calldata bootnode) external onlyOrganiser {
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

    /// Announces a new manifest; it holds from the round after the next one on.
    function setManifest(bytes32 digest) external onlyOrganiser {
        _manifest = manifestDigest();
        _nextManifest = digest;
        _nextManifestRound = _clock.round + 2;
        emit ManifestChanged(digest, _nextManifestRound);
    }

    function offerOrganiser(address candidate) external onlyOrganiser {
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

    function current()
        external
        view
        returns (uint64 round, uint8 stage, bytes32 seed, uint64 deadline, uint64 opened)
    {
        Clock memory clock = _clock;
        return (clock.round, clock.stage, _seeds[clock.round & 3], clock.deadline, clock.opened);
    }

    /// The seed of the current round or one of the three before it; zero for any other.
    function seedOf(uint64 round) external view returns (bytes32) {
        uint64 current_ = _clock.round;
        return round <= current_ && round + 4 > current_ ? _seeds[round & 3] : bytes32(0);
    }

    function stageSeconds(uint256 stage) public view returns (uint32) {
        if (stage >= stageCount) revert BadLimit(stage, stageCount);
        uint256 word = stage < 8 ? _stageSeconds : _stageSecondsHigh;
        return uint32(word >> ((stage & 7) * 32));
    }

    function manifestDigest() public view returns (bytes32) {
        return _nextManifestRound != 0 && _clock.round >= _nextManifestRound ? _nextManifest : _manifest;
    }

    function nextManifest() external view returns (bytes32 digest, uint64 fromRound) {
        return (_nextManifest, _nextManifestRound);
    }

    function bootnodes() external view returns (string[] memory) {
        return _bootnodes;
    }

    function registeredCount() external view returns (uint32) {
        return _clock.registered;
    }

    /// The block whose hash becomes the next seed; the largest number while none is fixed.
    function anchorBlock() external view returns (uint256) {
        return _anchor;
    }
}
