"""The counting rule, its flags against samtools and its way through JSON."""

import json
from dataclasses import fields, replace

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.commands.bin import command as bin_command
from candi_cli.counting import FLAGS, RULES, SHIFTED, CountingRule, parse_flags, parse_shift

RULE = st.builds(
    CountingRule,
    rule=st.sampled_from(RULES),
    resolution=st.integers(1, 10_000),
    min_mapq=st.integers(0, 255),
    excl_flags=st.integers(0, 0xFFF),
    shift=st.tuples(st.integers(-100, 100), st.integers(-100, 100)),
    keep_duplicates=st.booleans(),
)


def samtools_flags(text: str) -> int:
    """Return what `samtools flags` makes of a text: it prints hexadecimal, decimal, names."""
    return int(pysam.samtools.flags(text).split("\t")[1])


@pytest.mark.parametrize(
    "text", ["3844", "0xF04", "0xf04", "0", "UNMAP", "UNMAP,DUP", "dup,secondary", "PAIRED,PROPER_PAIR,READ1", *FLAGS]
)
def test_flags_mean_what_they_mean_to_samtools(text):
    assert parse_flags(text) == samtools_flags(text)


@given(st.sets(st.sampled_from(sorted(FLAGS))))
def test_names_numbers_and_hexadecimal_of_a_set_of_flags_are_the_same(names):
    flags = sum(FLAGS[name] for name in names)
    assert parse_flags(str(flags)) == parse_flags(hex(flags)) == flags
    if names:
        assert parse_flags(",".join(names)) == flags


@pytest.mark.parametrize("text", ["", "UNMAPPED", "UNMAP,", "-1", "65536", "0xG", "4;8", "1.5"])
def test_what_is_no_set_of_flags_is_refused_by_its_text(text):
    with pytest.raises(ValueError, match="SAM flag"):
        parse_flags(text)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_shift_reads_back_with_and_without_signs(plus, minus):
    assert parse_shift(f"{plus},{minus}") == parse_shift(f"{plus:+d},{minus:+d}") == (plus, minus)


@pytest.mark.parametrize("text", ["", "4", "4,", "4,-5,6", "a,b", "4.5,-5", "4;-5"])
def test_what_is_no_pair_of_shifts_is_refused(text):
    with pytest.raises(ValueError):
        parse_shift(text)


@given(RULE)
def test_a_rule_survives_json(rule):
    assert CountingRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


@given(RULE, RULE)
def test_rules_that_differ_in_any_part_are_told_apart_by_their_text(one, other):
    for part in fields(CountingRule):
        changed = replace(one, **{part.name: getattr(other, part.name)})
        assert (str(changed) == str(one)) == (changed == one)


def test_the_text_of_a_rule_states_each_of_its_parts():
    text = str(CountingRule("five-prime", 50, 20, 0x404, (4, -5)))
    for part in ("five-prime", "+4,-5", "50 bp", "MAPQ >= 20", "0x404"):
        assert part in text
    assert "+0,-5" in str(CountingRule("five-prime", shift=(0, -5)))
    assert "shift" not in str(CountingRule())


@pytest.mark.parametrize("rule", RULES)
def test_the_options_of_a_rule_are_those_that_bin_reads_it_from(rule):
    shift = (75, -75) if rule in SHIFTED else (0, 0)
    stated = CountingRule(rule, 50, 20, 0x404, shift, keep_duplicates=False)
    options = bin_command.make_context("bin", ["--covariates", "x.tsv", *stated.options().split()]).params
    assert CountingRule(
        options["count"], options["resolution"], options["min_mapq"], options["excl_flags"],
        options["shift"] or (0, 0), options["keep_dup"] == "all",
    ) == stated  # fmt: skip


def test_the_default_rule_drops_what_encode_drops():
    dropped = {name for name, bit in FLAGS.items() if CountingRule().excl_flags & bit}
    assert dropped == {"UNMAP", "SECONDARY", "QCFAIL", "DUP", "SUPPLEMENTARY"}
