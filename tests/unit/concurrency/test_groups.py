from __future__ import annotations

import pytest

from bedrock.concurrency.groups import first_member, lone_error_unwrapped, members

_ONE, _TWO, _THREE = ValueError("one"), KeyError("two"), OSError("three")


def test_the_members_of_nested_groups_come_in_their_order() -> None:
    group = ExceptionGroup("", [_ONE, ExceptionGroup("", [_TWO, _THREE])])
    assert list(members(group)) == [_ONE, _TWO, _THREE]
    assert first_member(ExceptionGroup("", [ExceptionGroup("", [_TWO]), _ONE])) is _TWO
    assert list(members(_ONE)) == [_ONE]


def test_a_lone_error_comes_out_of_as_many_groups_as_may_be_taken_off() -> None:
    inner = ExceptionGroup("", [_ONE])
    with pytest.raises(ValueError, match="one") as caught, lone_error_unwrapped():
        raise ExceptionGroup("", [inner])
    assert caught.value is _ONE
    assert caught.value.__context__ is None
    with pytest.raises(ExceptionGroup) as kept, lone_error_unwrapped(levels=1):
        raise ExceptionGroup("", [inner])
    assert kept.value is inner


def test_several_errors_stay_their_group() -> None:
    group = ExceptionGroup("", [_ONE, _TWO])
    with pytest.raises(ExceptionGroup) as caught, lone_error_unwrapped():
        raise group
    assert caught.value is group
