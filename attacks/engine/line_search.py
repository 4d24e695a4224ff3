"""The strong-Wolfe line search of torch.optim.LBFGS, as one small state machine per lane."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

LineSearch = Literal["none", "strong_wolfe"]
DECREASE, CURVATURE = 1e-4, 0.9  # Nocedal & Wright's c1 and c2
LEAST_GROWTH, MOST_GROWTH = 0.01, 10  # of a step that is too short: the former of its last increase, the latter of it
MARGIN = 0.1  # of a bracket's length: nearer to its ends a second trial in a row would be wasted


class StrongWolfe(NamedTuple):
    """The state of every lane in its search along a direction (Nocedal & Wright, algorithms 3.5 and 3.6).

    A point is (step, value, slope) on the line. Steps grow until the last two points, `ends`, have an acceptable one
    between them; then the lane is `zooming`, and each trial takes the place of an end. One call of `advanced` serves
    one evaluation of all lanes, whatever each is doing.
    """

    start: Tensor  # (lanes, 3)
    ends: Tensor  # (lanes, 2, 3)
    start_gradient: Tensor  # (lanes, n)
    low_gradient: Tensor  # (lanes, n), at the lower end; while steps grow, at the last trial
    second_is_low: Tensor  # (lanes,), like all below: is the second end the lower one?
    zooming: Tensor
    stalled: Tensor  # was the last trial too near to an end?
    tried: Tensor  # evaluations after the first
    limit: Tensor  # of `tried`
    reach: Tensor  # the largest entry of the direction

    @classmethod
    def over(cls, x: Tensor) -> StrongWolfe:
        """A search that accepts the first point it is shown; x is (lanes, n)."""
        start = x.new_tensor([0, float("inf"), 0]).expand(len(x), 3)
        none = torch.zeros_like(x[:, 0], dtype=torch.long)
        no = none.bool()
        return cls(start, start[:, None].expand(-1, 2, -1), x, x, no, no, no, none, none, x[:, 0])

    def begun(self, here: Tensor, start: Tensor, gradient: Tensor, limit: Tensor, reach: Tensor) -> StrongWolfe:
        """Start anew in the lanes that are `here`, at the points `start` (lanes, 3)."""
        no, none = torch.zeros_like(here), torch.zeros_like(limit)
        ends = start[:, None].expand(-1, 2, -1)
        new = StrongWolfe(start, ends, gradient, gradient, no, no, no, none, limit, reach)
        return StrongWolfe(*(_choose(here, *both) for both in zip(new, self, strict=True)))

    def advanced(self, trial: Tensor, gradient: Tensor, tolerance: float) -> tuple[StrongWolfe, Tensor, Tensor]:
        """Take in each lane's trial (lanes, 3) and its gradient; also returns `arrived` and the accepted or next step.

        A bracket arrives, too, once it moves no entry by `tolerance`.
        """
        step, value, slope = trial.unbind(1)
        zooming, searching = self.zooming, self.tried < self.limit
        before = self.ends[:, 1]
        low, high = self._low_first()
        # An undefined value fails every comparison, here as in torch: such a lane goes on until it is exhausted.
        steep = value > self.start[:, 1] + DECREASE * step * self.start[:, 2]
        flat = slope.abs() <= -CURVATURE * self.start[:, 2]

        rises = steep | ((self.tried > 1) & (value >= before[:, 1]))
        found = ~zooming & searching & ~rises & flat
        bracketed = ~zooming & searching & (rises | (~flat & (slope >= 0)))
        growing = ~zooming & searching & ~found & ~bracketed
        opposite = _choose(searching, before, self.start)

        worse = steep | (value >= low[:, 1])
        crossed = slope * (high[:, 0] - low[:, 0]) >= 0
        new_low, new_high = _choose(worse, low, trial), _choose(worse, trial, _choose(crossed, low, high))
        first = _choose(zooming, _choose(self.second_is_low, new_high, new_low), opposite)
        second = _choose(zooming, _choose(self.second_is_low, new_low, new_high), trial)
        lower = ~(first[:, 1] <= second[:, 1]) | found | growing
        second_is_low = torch.where(zooming & ~worse, self.second_is_low, lower)
        trial_is_low = torch.where(zooming, ~worse | (second_is_low != self.second_is_low), second_is_low)
        low_gradient = _choose(zooming | searching, self.low_gradient, self.start_gradient)
        low_gradient = _choose(trial_is_low, gradient, low_gradient)

        zooming = zooming | bracketed
        narrow = zooming & ((second[:, 0] - first[:, 0]).abs() * self.reach < tolerance)
        arrived = found | ~searching | narrow | (self.zooming & ~worse & flat)
        ends = torch.stack([first, second], 1)
        search = self._replace(
            ends=ends, low_gradient=low_gradient, second_is_low=second_is_low, zooming=zooming, tried=self.tried + 1
        )
        following, stalled = search._next()
        return search._replace(stalled=stalled), arrived, torch.where(arrived, search.accepted[:, 0], following)

    @property
    def accepted(self) -> Tensor:
        """The lower of the ends (lanes, 3)."""
        return self._low_first()[0]

    def _low_first(self) -> tuple[Tensor, Tensor]:
        first, second = self.ends.unbind(1)
        return _choose(self.second_is_low, second, first), _choose(self.second_is_low, first, second)

    def _next(self) -> tuple[Tensor, Tensor]:
        """The step to try, and whether it is too near to an end of the bracket."""
        first, second = self.ends.unbind(1)
        swapped = first[:, 0] > second[:, 0]
        left, right = _choose(swapped, second, first), _choose(swapped, first, second)
        least, most = left[:, 0], right[:, 0]
        lowest = _choose(self.zooming, least, most + LEAST_GROWTH * (most - least))
        step = _cubic_minimum(left, right, lowest, _choose(self.zooming, most, MOST_GROWTH * most))
        margin = MARGIN * (most - least)
        near = self.zooming & (torch.minimum(most - step, step - least) < margin)
        pushed = near & (self.stalled | (step >= most) | (step <= least))
        away = torch.where((step - most).abs() < (step - least).abs(), most - margin, least + margin)
        return torch.where(pushed, away, step), near & ~pushed


def _cubic_minimum(left: Tensor, right: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The minimum of the cubic through two points and their slopes; halfway between the bounds if it has none.

    Points are (lanes, 3); Nocedal & Wright, equation 3.59.
    """
    (step1, value1, slope1), (step2, value2, slope2) = left.unbind(1), right.unbind(1)
    d1 = slope1 + slope2 - 3 * (value1 - value2) / (step1 - step2)
    square = d1.square() - slope1 * slope2
    d2 = square.clamp_min(0).sqrt()
    least = step2 - (step2 - step1) * ((slope2 + d2 - d1) / (slope2 - slope1 + 2 * d2))
    return torch.where(square >= 0, least.clamp(lowest, highest), (lowest + highest) / 2)


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Each lane's entry of yes or no (lanes, ...), by a mask (lanes,)."""
    return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)
