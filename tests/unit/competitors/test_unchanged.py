"""The control: the seed as it is, which nobody writes to."""

from competitors.contract import Brief
from competitors.entry import compete
from competitors.unchanged import UnchangedRecipe


def test_the_control_is_the_seed_and_shares_only_its_weights(brief: Brief):
    submission = compete(brief, UnchangedRecipe(name="a", kind="unchanged"))
    assert (submission.status, submission.form, submission.reason) == ("delivered", "full", "the seed as it is")
    assert (submission.train_tokens, submission.has_continuation) == (0, False)
    for file in brief.output_dir.iterdir():
        original = brief.seed_model / file.name
        assert file.read_bytes() == original.read_bytes()
        assert file.samefile(original) == (file.suffix == ".safetensors")


def test_it_asks_for_no_gpu_and_trains_nothing():
    recipe = UnchangedRecipe(name="a", kind="unchanged")
    assert recipe.resources.gpus == 0
    assert not recipe.trains
