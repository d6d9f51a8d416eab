// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Clock} from "./Clock.sol";

/// Early close: a stage may end before its deadline once enough of last round's voters have reported its reward.
///
/// Off if `quorum` is 0. Only nodes whose vote was counted in the last round whose voting is complete take part, and
/// the quorum is a share of them: nodes registered since can neither close a stage nor keep it open.
abstract contract Quorum is Clock {
    struct Tally {
        uint64 key;
        uint32 number;
    }

    /// Percentage of last round's voters; 0: stages never close early.
    uint8 public immutable quorum;
    /// Minimum number of seconds that a stage lasts.
    uint32 public immutable earliest;

    Tally[4] private _voters;
    Tally private _ready;

    constructor(uint8 quorum_, uint32 earliest_) {
        if (quorum_ > 100) revert BadLimit(quorum_, 100);
        if (earliest_ > MAX_STAGE_SECONDS) revert BadLimit(earliest_, MAX_STAGE_SECONDS);
        if ((quorum_ == 0) != (earliest_ == 0)) revert BadLimit(earliest_, 0);
        quorum = quorum_;
        earliest = earliest_;
    }

    /// Rounds between the current one and the last one whose voting is complete.
    function _lag() internal view virtual returns (uint256);

    function _countVoters(uint256 round, uint256 more) internal {
        if (quorum != 0) _add(_voters[round & 3], round, more);
    }

    function _countReady(Time memory time, uint256 more) internal {
        if (quorum != 0 && more != 0) _add(_ready, _step(time), more);
    }

    function _add(Tally storage count, uint256 key, uint256 more) private {
        Tally memory known = count;
        if (known.key != key) known = Tally(uint64(key), 0);
        known.number += uint32(more);
        (count.key, count.number) = (known.key, known.number);
    }

    function _mayCloseEarly(Time memory time) internal view override returns (bool) {
        uint256 lag = _lag();
        if (quorum == 0 || time.round < lag) return false;
        uint256 from = time.opened > time.pausedUntil ? time.opened : time.pausedUntil;
        if (block.timestamp < from + earliest) return false;
        Tally memory voters = _voters[(time.round - lag) & 3];
        Tally memory ready = _ready;
        if (voters.key != time.round - lag || voters.number == 0 || ready.key != _step(time)) return false;
        return uint256(ready.number) * 100 >= uint256(voters.number) * quorum;
    }

    /// Stages since the deployment.
    function _step(Time memory time) internal view returns (uint256) {
        return uint256(time.round) * stageCount + time.stage;
    }

    /// How many voters have finished the current stage, and out of how many.
    function readiness() external view returns (uint32 ready, uint32 voters) {
        Time memory time = _time;
        uint256 lag = _lag();
        if (_ready.key == _step(time)) ready = _ready.number;
        if (time.round >= lag && _voters[(time.round - lag) & 3].key == time.round - lag) {
            voters = _voters[(time.round - lag) & 3].number;
        }
    }
}
