// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// RL Swarm's coordinator as a client sees it, for tests and trial swarms: written from a description of its
/// interface, not from its source. Its rules are kept with their holes: no deadlines, no seed, past rounds stay
/// open, winners are not checked, rewards are whatever their sender says. Not here: the upgradable proxy, and the
/// leaderboards that 0.5.0 removed.
contract RLSwarmCoordinator {
    /// 0.4.2: three stages, rewards signed only, once per account, and no later stage than the swarm's own in any
    /// round. 0.4.3: rewards unsigned too, once per peer id, in past rounds for any stage. 0.6.0: one stage.
    enum Version {
        V042,
        V043,
        V060
    }

    // --- errors ---------------------------------------------------------------------------------------------------

    error StageOutOfBounds();
    error InvalidBootnodeIndex();
    error InvalidRoundNumber();
    error WinnerAlreadyVoted();
    error PeerIdAlreadyRegistered();
    error InvalidVoterPeerId();
    error OnlyOwner();
    error OnlyBootnodeManager();
    error OnlyStageManager();
    error RewardAlreadySubmitted();
    error InvalidStageNumber();
    error InvalidVote();
    error InvalidInitialization();

    // --- events ---------------------------------------------------------------------------------------------------

    event StageAdvanced(uint256 indexed roundNumber, uint256 newStage);
    event RoundAdvanced(uint256 indexed newRoundNumber);
    event PeerRegistered(address indexed account, string peerId);
    event BootnodesAdded(address indexed manager, uint256 count);
    event BootnodeRemoved(address indexed manager, uint256 index);
    event AllBootnodesCleared(address indexed manager);
    event WinnerSubmitted(address indexed account, string peerId, uint256 indexed roundNumber, string[] winners);
    event RewardSubmitted(
        address indexed account, uint256 indexed roundNumber, uint256 indexed stageNumber, int256 reward, string peerId
    );
    event CumulativeRewardsUpdated(address indexed account, string peerId, int256 totalRewards);
    event RoleGranted(bytes32 indexed role, address indexed account, address indexed sender);
    event RoleRevoked(bytes32 indexed role, address indexed account, address indexed sender);
    event Initialized(uint64 version);

    // --- state ----------------------------------------------------------------------------------------------------

    bytes32 public constant OWNER_ROLE = keccak256("OWNER_ROLE");
    bytes32 public constant STAGE_MANAGER_ROLE = keccak256("STAGE_MANAGER_ROLE");
    bytes32 public constant BOOTNODE_MANAGER_ROLE = keccak256("BOOTNODE_MANAGER_ROLE");

    Version public immutable version;
    uint256 public immutable stageCount;

    uint256 public currentRound;
    uint256 public currentStage;
    uint256 public uniqueVoters;

    string[] private _bootnodes;
    mapping(bytes32 => mapping(address => bool)) private _roles;
    mapping(string => address) private _accounts;
    mapping(address => string[]) private _peerIds;
    mapping(uint256 => mapping(string => string[])) private _votes;
    mapping(uint256 => mapping(string => uint256)) private _received;
    mapping(string => uint256) private _cast;
    mapping(string => uint256) private _wins;
    mapping(string => int256) private _rewards;
    mapping(uint256 => mapping(uint256 => mapping(address => int256))) private _stageRewards;
    mapping(uint256 => mapping(uint256 => mapping(bytes32 => bool))) private _reported;

    constructor(Version version_) {
        version = version_;
        stageCount = version_ == Version.V060 ? 1 : 3;
        _grant(OWNER_ROLE, msg.sender);
        _grant(STAGE_MANAGER_ROLE, msg.sender);
        _grant(BOOTNODE_MANAGER_ROLE, msg.sender);
        emit Initialized(1);
    }

    /// The constructor did it.
    function initialize(address) external pure {
        revert InvalidInitialization();
    }

    // --- clock ----------------------------------------------------------------------------------------------------

    function updateStageAndRound() external returns (uint256, uint256) {
        if (!_roles[STAGE_MANAGER_ROLE][msg.sender]) revert OnlyStageManager();
        if (currentStage + 1 < stageCount) {
            currentStage += 1;
        } else {
            currentRound += 1;
            currentStage = 0;
            emit RoundAdvanced(currentRound);
        }
        emit StageAdvanced(currentRound, currentStage);
        return (currentRound, currentStage);
    }

    // --- peers ----------------------------------------------------------------------------------------------------

    function registerPeer(string calldata peerId) external {
        if (_accounts[peerId] != address(0)) revert PeerIdAlreadyRegistered();
        _accounts[peerId] = msg.sender;
        _peerIds[msg.sender].push(peerId);
        emit PeerRegistered(msg.sender, peerId);
    }

    function getPeerId(address[] calldata accounts) external view returns (string[][] memory found) {
        found = new string[][](accounts.length);
        for (uint256 i = 0; i < accounts.length; i++) found[i] = _peerIds[accounts[i]];
    }

    function getEoa(string[] calldata peerIds) external view returns (address[] memory found) {
        found = new address[](peerIds.length);
        for (uint256 i = 0; i < peerIds.length; i++) found[i] = _accounts[peerIds[i]];
    }

    // --- votes ----------------------------------------------------------------------------------------------------

    /// An empty list is taken, counts as a vote cast, and may be sent again and again: so it was.
    function submitWinners(uint256 roundNumber, string[] calldata winners, string calldata peerId) external {
        if (roundNumber > currentRound) revert InvalidRoundNumber();
        if (_votes[roundNumber][peerId].length != 0) revert WinnerAlreadyVoted();
        if (_accounts[peerId] != msg.sender) revert InvalidVoterPeerId();
        for (uint256 i = 0; i < winners.length; i++) {
            for (uint256 j = 0; j < i; j++) {
                if (_same(winners[i], winners[j])) revert InvalidVote();
            }
            _votes[roundNumber][peerId].push(winners[i]);
            _received[roundNumber][winners[i]] += 1;
            _wins[winners[i]] += 1;
        }
        if (_cast[peerId] == 0) uniqueVoters += 1;
        _cast[peerId] += 1;
        emit WinnerSubmitted(msg.sender, peerId, roundNumber, winners);
    }

    function getVoterVotes(uint256 roundNumber, string calldata peerId) external view returns (string[] memory) {
        return _votes[roundNumber][peerId];
    }

    function getVoterVoteCount(string calldata peerId) external view returns (uint256) {
        return _cast[peerId];
    }

    function getPeerVoteCount(uint256 roundNumber, string calldata peerId) external view returns (uint256) {
        return _received[roundNumber][peerId];
    }

    function getTotalWins(string calldata peerId) external view returns (uint256) {
        return _wins[peerId];
    }

    // --- rewards --------------------------------------------------------------------------------------------------

    function submitReward(uint256 roundNumber, uint256 stageNumber, int256 reward, string calldata peerId) external {
        _report(roundNumber, stageNumber, reward, peerId);
    }

    /// 0.4.2 has no such function: the answer is what a call to nothing gets.
    function submitReward(uint256 roundNumber, uint256 stageNumber, uint256 reward, string calldata peerId) external {
        if (version == Version.V042) {
            assembly {
                revert(0, 0)
            }
        }
        _report(roundNumber, stageNumber, int256(reward), peerId);
    }

    function _report(uint256 roundNumber, uint256 stageNumber, int256 reward, string calldata peerId) private {
        if (roundNumber > currentRound) revert InvalidRoundNumber();
        bool old = version == Version.V042;
        if (stageNumber > (roundNumber == currentRound || old ? currentStage : stageCount)) revert InvalidStageNumber();
        bytes32 reporter = old ? bytes32(uint256(uint160(msg.sender))) : keccak256(bytes(peerId));
        if (_reported[roundNumber][stageNumber][reporter]) revert RewardAlreadySubmitted();
        if (_accounts[peerId] != msg.sender) revert InvalidVoterPeerId();
        _reported[roundNumber][stageNumber][reporter] = true;
        _stageRewards[roundNumber][stageNumber][msg.sender] += reward;
        _rewards[peerId] += reward;
        emit RewardSubmitted(msg.sender, roundNumber, stageNumber, reward, peerId);
        emit CumulativeRewardsUpdated(msg.sender, peerId, _rewards[peerId]);
    }

    function getRoundStageReward(uint256 roundNumber, uint256 stageNumber, address[] calldata accounts)
        external
        view
        returns (int256[] memory found)
    {
        found = new int256[](accounts.length);
        for (uint256 i = 0; i < accounts.length; i++) found[i] = _stageRewards[roundNumber][stageNumber][accounts[i]];
    }

    function getTotalRewards(string[] calldata peerIds) external view returns (int256[] memory found) {
        found = new int256[](peerIds.length);
        for (uint256 i = 0; i < peerIds.length; i++) found[i] = _rewards[peerIds[i]];
    }

    // --- bootnodes ------------------------------------------------------------------------------------------------

    function addBootnodes(string[] calldata added) external {
        _onlyBootnodeManager();
        for (uint256 i = 0; i < added.length; i++) _bootnodes.push(added[i]);
        emit BootnodesAdded(msg.sender, added.length);
    }

    function removeBootnode(uint256 index) external {
        _onlyBootnodeManager();
        if (index >= _bootnodes.length) revert InvalidBootnodeIndex();
        _bootnodes[index] = _bootnodes[_bootnodes.length - 1];
        _bootnodes.pop();
        emit BootnodeRemoved(msg.sender, index);
    }

    function clearBootnodes() external {
        _onlyBootnodeManager();
        delete _bootnodes;
        emit AllBootnodesCleared(msg.sender);
    }

    function getBootnodes() external view returns (string[] memory) {
        return _bootnodes;
    }

    function getBootnodesCount() external view returns (uint256) {
        return _bootnodes.length;
    }

    function _onlyBootnodeManager() private view {
        if (!_roles[BOOTNODE_MANAGER_ROLE][msg.sender]) revert OnlyBootnodeManager();
    }

    // --- roles ----------------------------------------------------------------------------------------------------

    function grantRole(bytes32 role, address account) external {
        if (!_roles[OWNER_ROLE][msg.sender]) revert OnlyOwner();
        _grant(role, account);
    }

    function revokeRole(bytes32 role, address account) external {
        if (!_roles[OWNER_ROLE][msg.sender]) revert OnlyOwner();
        _roles[role][account] = false;
        emit RoleRevoked(role, account, msg.sender);
    }

    function hasRole(bytes32 role, address account) external view returns (bool) {
        return _roles[role][account];
    }

    function _grant(bytes32 role, address account) private {
        _roles[role][account] = true;
        emit RoleGranted(role, account, msg.sender);
    }

    function _same(string calldata left, string calldata right) private pure returns (bool) {
        return keccak256(bytes(left)) == keccak256(bytes(right));
    }
}
