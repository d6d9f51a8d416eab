// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Ballots} from "./Ballots.sol";

/// Rewards that nodes report for their own stages, once per stage, in millionths. Packed, submitted by anybody:
///   r (32) vs (32) reward (32)
abstract contract Rewards is Ballots {
    error WrongRound(uint64 given, uint64 current);
    error WrongStage(uint8 given, uint8 current);
    error RewardAlreadySubmitted();
    error RewardOutOfBounds();

    event RewardSubmitted(uint64 indexed round, uint8 indexed stage, address indexed node, int256 reward);

    /// One million, in millionths; sums cannot come near an overflow.
    int256 public constant MAX_REWARD = 1e12;

    bytes32 private constant REWARD = keccak256("Reward(uint64 round,uint8 stage,bytes32 seed,int256 reward)");

    /// The stages reported for the latest round that the node reported on, and for the one before it.
    struct Marks {
        uint24 round;
        uint16 stages;
        uint16 before;
    }

    mapping(address => Marks) private _marks;

    /// Publishes the sender's own reward for a stage of the current or the previous round.
    function submitReward(uint64 round, uint8 stage, bytes32 seed, int256 reward) external {
        Time memory time = _mustBeReportable(round, stage);
        _mustBeSeed(round, seed);
        _must(_report(round, stage, msg.sender, reward));
        _countReady(time, _hasSay(time, round, stage, msg.sender));
    }

    /// Records signed rewards for one stage.
    function submitRewards(uint64 round, uint8 stage, bytes calldata rewards) external {
        Time memory time = _mustBeReportable(round, stage);
        bytes memory form = _form(abi.encode(REWARD, round, stage, _seed(round)));
        uint256 counted;
        uint256 ready;
        for (uint256 from; from < rewards.length; from += 96) {
            bytes4 reason = Malformed.selector;
            if (from + 96 <= rewards.length) {
                (bytes32 r, bytes32 vs,,) = _entry(rewards, from, 64);
                bytes32 reward = bytes32(rewards[from + 64:]);
                address node = _signer(form, reward, r, vs);
                reason = _report(round, stage, node, int256(uint256(reward)));
                if (reason == 0) ready += _hasSay(time, round, stage, node);
            }
            counted += _isFine(from / 96, reason);
        }
        if (counted == 0) revert NothingCounted();
        _countReady(time, ready);
    }

    function _mustBeReportable(uint64 round, uint8 stage) private view returns (Time memory time) {
        time = _running();
        if (round > time.round || uint256(round) + 1 < time.round) revert WrongRound(round, time.round);
        uint8 newest = round == time.round ? time.stage : stageCount - 1;
        if (stage > newest) revert WrongStage(stage, newest);
    }

    function _report(uint64 round, uint8 stage, address name, int256 reward) private returns (bytes4) {
        Node memory node = _nodes[name];
        if (node.since == 0) return NotRegistered.selector;
        if (node.since > round) return NotCounted.selector;
        if (node.expiry <= block.timestamp) return DelegationOver.selector;
        if (reward > MAX_REWARD || reward < -MAX_REWARD) return RewardOutOfBounds.selector;
        Marks memory marks = _marks[name];
        if (round > marks.round) marks = Marks(uint24(round), 0, round == marks.round + 1 ? marks.stages : 0);
        uint16 bit = uint16(1 << stage);
        if ((round == marks.round ? marks.stages : marks.before) & bit != 0) return RewardAlreadySubmitted.selector;
        if (round == marks.round) marks.stages |= bit;
        else marks.before |= bit;
        _marks[name] = marks;
        emit RewardSubmitted(round, stage, name, reward);
        return 0;
    }

    /// 1 if this report counts towards the early close of the open stage.
    function _hasSay(Time memory time, uint64 round, uint8 stage, address node) private view returns (uint256) {
        if (quorum == 0 || round != time.round || stage != time.stage) return 0;
        return _votedLately(node, round) ? 1 : 0;
    }

    /// For each node, as bits, the stages whose rewards are already recorded for one of the last two rounds.
    function rewardsOf(address[] calldata many, uint64 round) external view returns (uint16[] memory stages) {
        stages = new uint16[](many.length);
        for (uint256 i; i < many.length; ++i) {
            Marks memory marks = _marks[many[i]];
            if (marks.round == round) stages[i] = marks.stages;
            else if (marks.round == uint256(round) + 1) stages[i] = marks.before;
        }
    }
}
