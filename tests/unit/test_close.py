"""Close codes: which exist, and which may be sent."""

from __future__ import annotations

import pytest

from wsev.close import CloseCode, check_close

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", SENDABLE)
def test_a_code_that_may_be_sent_is_taken(code: int) -> None:
    assert check_close(code, "why") == b"why"


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_a_code_that_may_not_be_sent_is_a_value_error(code: int) -> None:
    with pytest.raises(ValueError, match=f"code={code}: may not be sent"):
        check_close(code, "")


def test_a_code_of_the_enum_is_taken() -> None:
    assert check_close(CloseCode.GOING_AWAY, "") == b""


def test_123_bytes_of_reason_fit_and_124_do_not() -> None:
    assert check_close(1000, "é" * 61 + "x") == ("é" * 61 + "x").encode()
    with pytest.raises(ValueError, match="124 bytes"):
        check_close(1000, "é" * 62)


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (1000, b"why"), (1000.0, "")])
def test_a_wrong_type_is_a_type_error(code: object, reason: object) -> None:
    with pytest.raises(TypeError):
        check_close(code, reason)  # type: ignore[arg-type]  # that is the claim
