"""What holds of shedding for any history of looks, whatever the clocks do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core import Staleness

EPOCH = 1_700_000_000_000_000_000

ages = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=8).map(lambda ages: sorted(ages, reverse=True))
looks = st.lists(st.tuples(st.floats(0.0, 3.0), ages), min_size=1, max_size=60)


class StalenessProperties(SynchronousTestCase):
    """Any history."""

    @given(max_wait=st.floats(0.01, 100.0), history=looks)
    def test_any_history(self, max_wait: float, history: list[tuple[float, list[float]]]) -> None:
        """Older than the limit is always shed, younger than a quarter of it never; in between only while it stands."""
        staleness = Staleness(max_wait)
        now = 0.0
        for wait, batch in history:
            now += wait * max_wait / 4
            wall = EPOCH + round(now * 1e9)
            times = [wall - round(age * max_wait / 4 * 1e9) for age in batch]
            since = staleness.worth_serving_since(times, now=now, wall=wall)
            for at in times:
                age, is_shed = (wall - at) / 1e9, at < since
                if age > max_wait * 1.001:
                    assert is_shed
                if age < max_wait / 4 * 0.999:
                    assert not is_shed
                if is_shed and age < max_wait * 0.999:
                    assert staleness.standing
            if staleness.standing:
                assert (wall - times[-1]) / 1e9 > max_wait / 20 * 0.999

    @given(
        max_wait=st.floats(0.01, 100.0),
        steps=st.lists(st.tuples(st.integers(0, 10), st.integers(-(10**19), 10**19)), max_size=20),
        arrivals=st.lists(st.integers(-(10**19), 10**19), min_size=1, max_size=5),
    )
    def test_any_clock(self, max_wait: float, steps: list[tuple[int, int]], arrivals: list[int]) -> None:
        """However the wall clock jumps, nothing fails, and after max_wait without a jump it sheds by it again."""
        staleness = Staleness(max_wait)
        now, wall = 0.0, EPOCH
        for wait, by in steps:
            now += wait * max_wait / 10
            wall += by
            staleness.worth_serving_since(arrivals, now=now, wall=wall)
        staleness.worth_serving_since([wall], now=now, wall=wall)
        now += max_wait * 1.01
        wall += round(max_wait * 1.01e9)
        old, young = wall - round(max_wait * 1.5e9), wall
        assert old < staleness.worth_serving_since([old, young], now=now, wall=wall) <= young
