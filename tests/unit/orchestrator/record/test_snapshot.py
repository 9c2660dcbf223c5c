"""The snapshot: states follow from records, what has not changed is not read again, what is torn is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BrokenRecord
from competitors.contract import Submission
from orchestrator.field.model_ref import ModelRef
from orchestrator.record import snapshot
from orchestrator.record.records import Inspection
from orchestrator.record.snapshot import SnapshotReader
from tests.fabricate import fabricate


@pytest.fixture
def reader(tmp_path: Path) -> SnapshotReader:
    _, run = fabricate(tmp_path / "demo", rejections={("llama", 1, "full"): "not finite"})
    return SnapshotReader(run)


def test_everything_on_record_is_in_it(reader: SnapshotReader):
    snapshot = reader.read()
    assert snapshot.is_finished
    assert snapshot.state == "finished"
    llama = snapshot.lineage("llama")
    assert [round_.number for round_ in llama.settled] == [1, 2]
    assert llama.champion == llama.verdicts[-1].champion
    assert llama.scorecard_of(ModelRef()) == llama.scorecard
    assert llama.scorecard_of(llama.champion) is not None
    assert llama.entry(ModelRef("nobody", 1)) is None
    states = {entry.name: (entry.state, entry.reason) for entry in llama.rounds[0].entries}
    assert states["full"] == ("rejected", "not finite")
    assert states["lora-r16"][0] == "scored"
    assert set(snapshot.references) == {"instruct"}


def test_an_entrys_state_follows_from_its_records(tmp_path: Path):
    _, run = fabricate(tmp_path / "demo", settled={"llama": 1})
    folder = run.entry("llama", 1, "full")
    reader = SnapshotReader(run)
    (run.round("llama", 1) / "verdict.json").unlink()

    def state() -> str:
        entry = reader.read().lineage("llama").rounds[0].entry("full")
        assert entry is not None
        return entry.state

    seen = [state()]
    for name in ("scorecard.json", "inspection.json", "submission.json", "log.txt", "brief.json"):
        (folder / name).unlink()
        seen.append(state())
    # Its log begins when it has its worker.
    assert seen == ["scored", "inspected", "delivered", "training", "queued", "queued"]
    submission = Submission(competitor="full", kind="sft", status="forfeit", reason="r", seed_sha256="0")
    run.write(submission, folder / "submission.json")
    assert state() == "forfeit"
    run.write(Inspection(form="full", reason="bad"), folder / "inspection.json")
    assert state() == "rejected"


@pytest.mark.parametrize(("distance", "said"), [(1e-4, "all but its seed: moved its weights by 0.0001 of"), (1e-3, "")])
def test_what_is_all_but_its_seed_says_so(distance: float, said: str):
    inspection = Inspection(form="full", content="c", distance=distance)
    assert inspection.note.startswith(said)
    assert bool(inspection.note) == bool(said)
    assert Inspection(form="full", reason="[/bold]\x1b[31m <b>", distance=distance).note == ""
    assert Inspection(form="full", reason="[/bold]\x1b[31m <b>").reason == "(/bold) (31m ‹b›"


def test_only_what_changed_is_read_again(reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch):
    first = reader.read()
    read: list[Path] = []
    original = type(reader.run).read

    def counted(run: Any, kind: Any, path: Path) -> Any:
        read.append(path)
        return original(run, kind, path)

    monkeypatch.setattr(type(reader.run), "read", counted)
    monkeypatch.setattr(type(reader.run), "config", property(lambda run: read.append(run.config_file)))
    again = reader.read()
    assert read == []
    assert again.lineage("llama").rounds[0] is first.lineage("llama").rounds[0]  # settled: not even looked at
    verdict = first.lineage("llama").verdicts[1]
    path = reader.run.round("llama", 2) / "verdict.json"
    reader.run.write(verdict.model_copy(update={"reasons": ["another"]}), path)
    assert reader.read().lineage("llama").verdicts[1].reasons == ["another"]
    assert read == [path]


FILES = [
    "lineages/llama/round-000/scorecard.json",
    "lineages/llama/round-001/roster.json",
    "lineages/llama/round-001/verdict.json",
    "lineages/llama/round-001/champion.json",
    "lineages/llama/round-001/lora-r16/submission.json",
    "lineages/llama/round-001/lora-r16/scorecard.json",
    "lineages/llama/round-001/lora-r16/inspection.json",
    "references/instruct/scorecard.json",
    "data/manifest.json",
    "tournament.yaml",
]
DAMAGE = {
    "torn": lambda text: text[: len(text) // 2],
    "newer": lambda text: re.sub(r'"format": (\d)', r'"format": 1\1', text),
    "older": lambda text: re.sub(r' "format": \d,\n', "", text),
    "empty": lambda text: "",
    "other": lambda text: "[1]",
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_record_that_cannot_be_read_is_one_line_that_names_it(reader: SnapshotReader, name: str, how: str):
    path = reader.run.root / name
    before = path.read_text()
    after = DAMAGE[how](before)
    path.write_text(after)
    if after == before:
        assert name == "tournament.yaml"  # which has no format number
        return
    with pytest.raises(BrokenRecord) as error:
        reader.read()
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lineages/llama/round-002/verdict.json", "references/instruct/scorecard.json"])
def test_a_step_whose_record_is_missing_is_still_to_be_done(reader: SnapshotReader, name: str):
    (reader.run.root / name).unlink()
    assert not reader.read().is_finished


def test_what_is_written_while_it_reads_is_of_the_next_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, run = fabricate(tmp_path / "demo", lineages=("llama",))
    verdict, reference = run.round("llama", 2) / "verdict.json", run.reference("instruct") / "scorecard.json"
    verdict.rename(tmp_path / "verdict"), reference.rename(tmp_path / "card")
    take = snapshot._times

    def times(folder: Path, *names: str) -> dict[str, int]:
        taken = take(folder, *names)
        for file, later in ((verdict, tmp_path / "verdict"), (reference, tmp_path / "card")):
            if folder == file.parent and later.exists():
                later.rename(file)
        return taken

    monkeypatch.setattr(snapshot, "_times", times)
    reader = SnapshotReader(run)
    first = reader.read()
    assert all(one.verdict is None or "verdict.json" in one.times for one in first.lineages[0].rounds)
    assert set(first.references) <= set(first.reference_times)
    assert reader.read().is_finished
