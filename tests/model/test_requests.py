"""Covariates that are asked for of the output: of one assay, of all, or those of its input."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.covariates import FIELDS, Covariates
from candi_cli.model.requests import Asked, asked_of, parse_asked

OWN = Covariates(7e6, 36, "single-ended", "Illumina HiSeq 2000", span_bp=3e9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("same", Asked(None, None)),
        ("H3K4me3:same", Asked("H3K4me3", None)),
        (" H3K4me3 : same ", Asked("H3K4me3", None)),
        ("depth=50M", Asked(None, Covariates(depth=5e7))),
        ("depth=50M,read_length=100", Asked(None, Covariates(5e7, 100))),
        ("CTCF:depth=50M,run_type=paired-ended", Asked("CTCF", Covariates(5e7, None, "paired-ended"))),
        ("same:depth=1", Asked("same", Covariates(1))),  # an assay may have any name
        (":depth=1", Asked(None, Covariates(1))),
    ],
)
def test_a_request_is_of_one_assay_or_of_all(text, expected):
    assert parse_asked(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "x", "CTCF:", "CTCF:x", "Same", "depth", "depth=", "depth=0", "width=3", "CTCF:depth=1,depth=2", "a:b:same"],
)
def test_what_is_no_request_is_refused(text):
    with pytest.raises(ValueError):
        parse_asked(text)


def test_a_platform_whose_name_holds_a_colon_is_not_taken_for_an_assay():
    with pytest.raises(ValueError, match="'x:y' is not a known platform"):
        parse_asked("platform=x:y")


COVARIATES = st.builds(
    Covariates,
    st.none() | st.integers(1, 9).map(float),
    st.none() | st.integers(1, 9).map(float),
    st.none() | st.sampled_from(["single-ended", "paired-ended"]),
    st.none() | st.sampled_from(["Illumina MiSeq", "DNBSEQ-T7"]),
    st.none() | st.just(3e9),
)
REQUESTS = st.lists(st.builds(Asked, st.sampled_from([None, "x", "y"]), st.none() | COVARIATES), max_size=5)


@given(REQUESTS, st.none() | COVARIATES)
def test_each_covariate_is_the_last_that_was_asked_of_the_assay_and_else_the_last_of_all(several, own):
    found = asked_of("x", several, own)
    assert found.span_bp is None
    for name in FIELDS:
        told = [
            getattr(asked.covariates if asked.covariates is not None else own or Covariates(), name)
            for wanted in ("x", None)
            for asked in reversed(several)
            if asked.assay == wanted
        ]
        assert getattr(found, name) == next((value for value in told if value is not None), None)


def test_same_is_what_the_input_has_and_nothing_where_there_is_no_input():
    same = [parse_asked("same")]
    assert asked_of("x", same, OWN) == replace(OWN, span_bp=None)
    assert asked_of("x", same, None) == Covariates()
    assert asked_of("x", [], OWN) == Covariates()
    assert asked_of("x", [parse_asked("y:same")], OWN) == Covariates()


def test_what_is_asked_of_one_assay_goes_before_what_is_asked_of_all_whatever_comes_first():
    several = [parse_asked("depth=1,read_length=50"), parse_asked("x:depth=2")]
    for asked in (several, several[::-1]):
        assert asked_of("x", asked, OWN) == Covariates(2, 50)
        assert asked_of("y", asked, OWN) == Covariates(1, 50)
    assert asked_of("x", [parse_asked("depth=1"), parse_asked("x:same")], OWN) == replace(OWN, span_bp=None)
