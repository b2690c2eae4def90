"""The laws of units: what is formatted is read back exactly, and what cannot be read says what was meant."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.units import (
    Rate,
    UnitError,
    format_backoff,
    format_duration,
    format_rate,
    format_size,
    parse_backoff,
    parse_duration,
    parse_rate,
    parse_size,
)

seconds = st.one_of(
    st.integers(0, 10**9).map(float),
    st.integers(0, 10**7).map(lambda n: n / 1000),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(abs),  # abs: -0.0 is 0.0
)
sizes = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 10**6).map(lambda n: n * 2**20))


@given(seconds)
def test_a_formatted_duration_is_read_back_exactly(duration: float) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(seconds)
def test_a_plain_number_is_seconds(duration: float) -> None:
    assert parse_duration(duration) == duration


@given(sizes)
def test_a_formatted_size_is_read_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(sizes)
def test_a_plain_number_is_bytes(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == size


@given(st.integers(1, 10**12), seconds.filter(bool))
def test_a_formatted_rate_is_read_back_exactly(n: int, period: float) -> None:
    assert parse_rate(format_rate(Rate(n, period))) == Rate(n, period)


@given(seconds, seconds)
def test_a_formatted_backoff_is_read_back_exactly(one: float, other: float) -> None:
    first, longest = sorted((one, other))
    assert parse_backoff(format_backoff(first, longest)) == (first, longest)


def refusal(parse: Callable[[object], object], written: object) -> UnitError | None:
    try:
        parse(written)
    except UnitError as error:
        return error
    return None


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate, parse_backoff])
@given(text=st.text() | st.text("0123456789./smhdwkKMGBi ", max_size=12))
def test_any_text_is_read_or_refused_with_a_suggestion_that_can_be_read(
    parse: Callable[[object], object], text: str
) -> None:
    refused = refusal(parse, text)
    if refused:
        assert refused.message
        assert refused.suggestion
        if refused.suggestion.startswith("did you mean "):
            parse(refused.suggestion.removeprefix("did you mean ").removesuffix("?"))


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400),
        ("1.5h", 5400), ("30", 30), (30, 30), (0.5, 0.5), ("0s", 0),
    ],
)  # fmt: skip
def test_durations(written: object, stands_for: float) -> None:
    assert parse_duration(written) == stands_for


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("256MB", 256_000_000), ("256MiB", 268_435_456), ("1GiB", 1_073_741_824), ("512KB", 512_000), ("256KiB", 262_144),
        ("1.5GB", 1_500_000_000), ("2TB", 2 * 10**12), ("1TiB", 2**40), ("17B", 17), (17, 17), (17.0, 17),
    ],
)  # fmt: skip
def test_sizes_in_tens_and_in_twos(written: object, stands_for: int) -> None:
    assert parse_size(written) == stands_for


@pytest.mark.parametrize(
    ("written", "n", "period"),
    [
        ("2/s", 2, 1), ("100/10s", 100, 10), ("500/m", 500, 60), ("10000/d", 10_000, 86_400), ("3/h", 3, 3600),
        ("1/w", 1, 604_800), ("5/250ms", 5, 0.25), ("10/1m30s", 10, 90), ("2.0/s", 2, 1),
        ("0.5/s", 1, 2), ("1.5/s", 3, 2), ("0.1/m", 1, 600),
    ],
)  # fmt: skip
def test_rates_count_whole_units(written: str, n: int, period: float) -> None:
    assert parse_rate(written) == Rate(n, period)


@pytest.mark.parametrize(
    ("format_it", "shortest"),
    [
        (lambda: format_duration(30), "30s"), (lambda: format_duration(60), "1m"), (lambda: format_duration(90), "90s"),
        (lambda: format_duration(5400), "90m"), (lambda: format_duration(0.25), "250ms"),
        (lambda: format_duration(1.5), "1.5s"), (lambda: format_duration(14 * 86_400), "2w"),
        (lambda: format_duration(0), "0s"), (lambda: format_duration(0.0001), "0.0001s"),
        (lambda: format_size(256_000_000), "256MB"), (lambda: format_size(2**18), "256KiB"),
        (lambda: format_size(1234), "1234B"), (lambda: format_size(0), "0B"),
        (lambda: format_rate(Rate(2, 1)), "2/s"), (lambda: format_rate(Rate(1, 2)), "1/2s"),
        (lambda: format_rate(Rate(9, 86_400)), "9/d"), (lambda: format_backoff(1, 300), "1s..5m"),
    ],
)  # fmt: skip
def test_the_shortest_form_is_written(format_it: Callable[[], str], shortest: str) -> None:
    assert format_it() == shortest


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_what_is_no_duration_is_not_formatted(wrong: float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        format_duration(wrong)


@pytest.mark.parametrize("wrong", [-1, 2**63])
def test_what_is_no_size_is_not_formatted(wrong: int) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        format_size(wrong)


DURATION = "write a number and a unit, such as 250ms, 30s, 5m, 2h, 7d or 1w"
SIZE = "write a number and a unit, such as 512KB, 256MB or 1GiB"
RATE = "write how many per period, such as 2/s, 100/10s, 500/m or 10000/d"
NO_RATE = "to have no limit, leave it out; to stop a pipeline, write paused: true"

WRONG = [
    (parse_duration, "30 sec", "'30 sec' is not a duration", "did you mean 30s?"),
    (parse_duration, "5 Minutes", "'5 Minutes' is not a duration", "did you mean 5m?"),
    (parse_duration, "1 hour and 5 min", "'1 hour and 5 min' is not a duration", "did you mean 1h5m?"),
    (parse_duration, "1,5s", "'1,5s' is not a duration", "did you mean 1.5s?"),
    (parse_duration, "soon", "'soon' is not a duration", DURATION),
    (parse_duration, "-5s", "'-5s' is not a duration", DURATION),
    (parse_duration, "", "'' is not a duration", DURATION),
    (parse_duration, "٣s", "'٣s' is not a duration", DURATION),
    (parse_duration, "9" * 500 + "s", "'" + "9" * 39 + "…' is not a duration", DURATION),
    (parse_duration, "9" * 399 + "w", "'" + "9" * 39 + "…' is longer than any duration can be", DURATION),
    (parse_duration, "a\nb", "'a\\nb' is not a duration", DURATION),
    (parse_duration, -3, "a duration cannot be negative, and -3 is", DURATION),
    (parse_duration, True, "true is not a duration", DURATION),
    (parse_duration, None, "nothing (null) is not a duration", DURATION),
    (parse_duration, float("inf"), "inf is not a duration", DURATION),
    (parse_duration, float("nan"), "nan is not a duration", DURATION),
    (parse_duration, 10**400, "a number of hundreds of digits is not a duration", DURATION),
    (parse_duration, [30], "a list is not a duration", DURATION),
    (parse_size, "256 mb", "'256 mb' is not a size", "did you mean 256MB?"),
    (parse_size, "256M", "'256M' is not a size", "did you mean 256MB?"),
    (parse_size, "1Gi", "'1Gi' is not a size", "did you mean 1GiB?"),
    (parse_size, "10 bytes", "'10 bytes' is not a size", "did you mean 10B?"),
    (parse_size, "lots", "'lots' is not a size", SIZE),
    (parse_size, "0.3B", "'0.3B' is not a whole number of bytes that a machine can have", SIZE),
    (parse_size, 1.5, "1.5 is not a whole number of bytes", SIZE),
    (parse_size, -1, "-1 is not a whole number of bytes", SIZE),
    (parse_size, {}, "a mapping is not a size", SIZE),
    (parse_rate, "10", "'10' is not a rate", "did you mean 10/s?"),
    (parse_rate, 10, "10 is a rate without a period", "did you mean 10/s?"),
    (parse_rate, "10 per second", "'10 per second' is not a rate", "did you mean 10/s?"),
    (parse_rate, "600rpm", "'600rpm' is not a rate", "did you mean 600/m?"),
    (parse_rate, "10 requests / minute", "'10 requests / minute' is not a rate", "did you mean 10/m?"),
    (parse_rate, "1,000/m", "'1,000/m' is not a rate", "did you mean 1000/m?"),
    (parse_rate, "10/60", "'10/60' is not a rate", "did you mean 10/60s?"),
    (parse_rate, "10/fortnight", "'10/fortnight' is not a rate", RATE),
    (parse_rate, "-2/s", "'-2/s' is not a rate", RATE),
    (parse_rate, "0/s", "the rate '0/s' has a count of zero, so nothing would ever start", NO_RATE),
    (parse_rate, "5/0s", "the rate '5/0s' has a period of zero, so nothing would ever start", NO_RATE),
    (parse_rate, "0.0001/s", "the count of '0.0001/s' has more than three decimals", "count whole units in a longer period"),
    (parse_rate, "9999999999999/s", "the count of '9999999999999/s' is larger than 10**12",
     "leave the rate out to have no limit"),
    (parse_rate, f"1/{'9' * 395}w", "the period of '1/" + "9" * 37 + "…' is longer than any can be", RATE),
    (parse_backoff, "1s", "'1s' is not a range of waits", "did you mean 1s..1s?"),
    (parse_backoff, 3, "3 is not a range of waits", "did you mean 3s..3s?"),
    (parse_backoff, "1s-5m", "'1s-5m' is not a range of waits", "did you mean 1s..5m?"),
    (parse_backoff, "1s to 5 minutes", "'1s to 5 minutes' is not a range of waits", "did you mean 1s..5m?"),
    (parse_backoff, "5m..1s", "in '5m..1s' the first wait is longer than the longest", "did you mean 1s..5m?"),
    (parse_backoff, "x..y", "'x..y' is not a range of waits: 'x' is not a duration",
     "write the first and the longest wait, such as 1s..5m"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "written", "message", "suggestion"), WRONG)
def test_what_cannot_be_read_says_what_was_meant(
    parse: Callable[[object], object], written: object, message: str, suggestion: str
) -> None:
    with pytest.raises(UnitError) as caught:
        parse(written)
    assert (caught.value.message, caught.value.suggestion) == (message, suggestion)
    assert str(caught.value) == f"{message} ({suggestion})"
