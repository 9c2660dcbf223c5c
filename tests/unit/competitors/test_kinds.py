"""The table of kinds is whole."""

from typing import get_args

from competitors.kinds import RESUMES, RUN, STARTS_CLEAN, Recipe


def test_every_kind_has_a_record_and_something_that_runs_it():
    records = get_args(get_args(Recipe)[0])
    kinds = {get_args(record.model_fields["kind"].annotation)[0] for record in records}
    assert kinds == set(RUN)
    assert {*RESUMES, *STARTS_CLEAN} <= kinds
    assert not set(RESUMES) & set(STARTS_CLEAN)
