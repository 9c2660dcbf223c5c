import itertools
import random
import stat
from functools import partial
from pathlib import Path

import datasets
import pytest

from cluster.digest import sha256_of
from cluster.errors import BrokenRecord, UserError
from evaluation.data.likeness import normalised
from evaluation.data.splits import Manifest, Row, file_of, make_splits, read_split

PROMPT, COMPLETION = "{instruction}\n", "{response}"


def example_rows() -> list[dict[str, str | None]]:
    """120 rows: 90 prompts alone, and 10 groups of three rows that differ in case and white space."""
    rows: list[dict[str, str | None]] = [{"instruction": f"alone {i}", "response": f"{i}"} for i in range(90)]
    for i in range(10):
        rows += [{"instruction": text, "response": text} for text in (f"Same {i}", f"same  {i}", f"ſame {i} ")]
        rows[-2]["response"], rows[-1]["response"] = "second", "third"
    return rows


def split(
    rows: list[dict[str, str | None]], out: Path, seed: int = 3, validation: int = 20, test: int = 15
) -> Manifest:
    return make_splits(datasets.Dataset.from_list(rows), PROMPT, COMPLETION, validation, test, seed, out, source="here")


def read_all(out: Path) -> dict[str, list[Row]]:
    return {file.stem: read_split(file) for file in out.rglob("*.parquet")}


def test_counts_files_and_manifest(tmp_path: Path) -> None:
    manifest = split(example_rows(), tmp_path)
    found = read_all(tmp_path)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 85, "validation": 10, "proof": 10, "test": 15}
    assert manifest.counts == {"train": 85, "validation": 10, "proof": 10, "test": 15}
    assert manifest.rows_read == 120
    assert manifest.groups == 100
    assert manifest.sha256 == {name: sha256_of(tmp_path / file_of(name)) for name in manifest.counts}
    assert Manifest.read(tmp_path / "manifest.json") == manifest
    assert all(row.prompt.endswith("\n") for rows in found.values() for row in rows)
    assert len({row.row_id for rows in found.values() for row in rows}) == 120


def test_no_prompt_is_on_two_sides(tmp_path: Path) -> None:
    split(example_rows(), tmp_path)
    sides = [{normalised(row.prompt) for row in rows} for rows in read_all(tmp_path).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 100


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = example_rows()
    # The same but for case, with other bytes: one of the two is dropped, whichever comes first.
    rows.append({"instruction": "ALONE 7", "response": "7"})
    first = split(rows, tmp_path / "a")
    random.Random(0).shuffle(rows)
    second = split(rows, tmp_path / "b")
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")
    assert first == second
    assert first.dropped == {"duplicate": 1}


def test_the_seed_decides_membership(tmp_path: Path) -> None:
    first, second = split(example_rows(), tmp_path / "a", seed=3), split(example_rows(), tmp_path / "b", seed=4)
    assert first.fingerprint != second.fingerprint
    held_out = [{row.row_id for row in read_split(tmp_path / name / file_of("validation"))} for name in "ab"]
    assert held_out[0] != held_out[1]


def test_drops_are_counted_by_reason(tmp_path: Path) -> None:
    extra: list[dict[str, str | None]] = [
        {"instruction": "no answer", "response": "  "},
        {"instruction": "none", "response": None},
        {"instruction": " ", "response": "to nothing"},
        {"instruction": "alone 3", "response": "3"},
        {"instruction": "ALONE 3 ", "response": " 3"},
    ]
    manifest = split(example_rows() + extra, tmp_path)
    assert manifest.dropped == {"duplicate": 2, "empty completion": 2, "empty prompt": 1}
    assert manifest.rows_read == sum(manifest.counts.values()) + sum(manifest.dropped.values())


def test_held_out_files_are_private(tmp_path: Path) -> None:
    split(example_rows(), tmp_path)
    assert stat.S_IMODE((tmp_path / "held_out").stat().st_mode) == 0o700
    for name in ("validation", "proof", "test"):
        assert stat.S_IMODE((tmp_path / "held_out" / f"{name}.parquet").stat().st_mode) == 0o600


def test_a_group_too_large_for_the_room_goes_elsewhere_whole(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [{"instruction": "big", "response": str(i)} for i in range(5)]
    rows += [{"instruction": f"p{i}", "response": "x"} for i in range(20)]
    for seed in range(5):
        split(rows, tmp_path / str(seed), seed, validation=8, test=6)
        splits = read_all(tmp_path / str(seed))
        assert [len(splits[name]) for name in ("validation", "proof", "test")] == [4, 4, 6]
        assert sum(any(row.prompt == "big\n" for row in members) for members in splits.values()) == 1
        assert all(row.prompt != "big\n" for row in [*splits["validation"], *splits["proof"]])


def test_an_absent_input_renders_as_nothing(tmp_path: Path) -> None:
    rows = [{"instruction": f"do {i}", "response": "x", **({"input": "with this"} if i % 2 else {})} for i in range(10)]
    keys = ["instruction", "input", "response"]
    dataset = datasets.Dataset.from_list([{key: row.get(key) for key in keys} for row in rows])
    make_splits(dataset, "{instruction}\n{input}{{}}\n", COMPLETION, 2, 2, 0, tmp_path, "here")
    prompts = {row.prompt for found in read_all(tmp_path).values() for row in found}
    assert {"do 0\n{}\n", "do 1\nwith this{}\n"} <= prompts


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("{question}\n", COMPLETION, r"data\.prompt.*'question'; the columns are instruction, response, nothing"),
        (PROMPT, "{nothing}", r"data\.completion.*'nothing'; the columns are"),
        ("{instruction", COMPLETION, r"data\.prompt.*not a template"),
        ("{instruction!r}", COMPLETION, r"data\.prompt.*without !"),
        (PROMPT, "yes", r"data\.completion.*no column"),
    ],
)
def test_bad_templates(tmp_path: Path, prompt: str, completion: str, message: str) -> None:
    dataset = datasets.Dataset.from_list([{**row, "nothing": None} for row in example_rows()])
    with pytest.raises(UserError, match=message):
        make_splits(dataset, prompt, completion, 2, 2, 0, tmp_path, "here")
    assert not (tmp_path / "manifest.json").exists()


def test_too_few_rows_names_keys_and_numbers(tmp_path: Path) -> None:
    words = r"validation: 100 and data\.test: 20 take 121 rows at least.* 120 rows with 100 different"
    with pytest.raises(UserError, match=words):
        split(example_rows(), tmp_path, validation=100, test=20)


@pytest.mark.parametrize(("group", "fits"), [(1, True), (3, True), (4, True), (15, False)])
def test_a_split_may_lack_what_no_group_fits_into(tmp_path: Path, group: int, fits: bool) -> None:
    """50, 50 and 50 rows in groups of 3 are 48 each; in groups of 15 they would be 45, but 30 in one of ten."""
    rows = [{"instruction": f"prompt {i}", "response": "c", "user": f"u{i // group}"} for i in range(600)]
    wanted = 50 if fits else 40
    made = partial(make_splits, datasets.Dataset.from_list(rows), PROMPT, COMPLETION, 2 * wanted, wanted, 1, tmp_path)
    if not fits:
        with pytest.raises(UserError, match=r"are never divided; got 60 for validation, 30 for test, 510 for train"):
            made("here", group="user")
        return
    counts = made("here", group="user").counts
    full = 50 - 50 % group
    assert counts == {"train": 600 - 3 * full, "validation": full, "proof": full, "test": full}


def test_normalised() -> None:
    assert normalised(" Straße\t№ 1\n") == normalised("STRASSE No 1") == "strasse no 1"


def test_a_slice_takes_rows_from_train_alone_and_never_many(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list([{"instruction": f"prompt {i}", "response": "c"} for i in range(100)])
    found: dict[int, dict[str, list[Row]]] = {}
    for count in (0, 5, 1000):
        out = tmp_path / str(count)
        make_splits(dataset, PROMPT, COMPLETION, 10, 10, 1, out, "here", slice_rows=count)
        found[count] = {file.stem: read_split(file) for file in out.rglob("*.parquet")}
    plain, sliced, greedy = found.values()
    assert "slice" not in plain
    for name in ("validation", "proof", "test"):
        assert plain[name] == sliced[name]
    assert len(sliced["slice"]) == 5
    assert len(greedy["slice"]) == 8
    assert sorted(r.row_id for r in sliced["slice"] + sliced["train"]) == sorted(r.row_id for r in plain["train"])


@pytest.mark.parametrize("kept", [0, 100])
def test_held_out_rows_that_are_damaged_are_one_line_that_names_the_file(tmp_path: Path, kept: int):
    (tmp_path / "test.parquet").write_bytes(b"PAR1" * (kept // 4))
    with pytest.raises(BrokenRecord) as caught:
        read_split(tmp_path / "test.parquet")
    assert str(caught.value).startswith(f"{tmp_path / 'test.parquet'}: is cut off or damaged")
    assert "\n" not in str(caught.value)


def test_where_rows_rotate_each_turn_has_its_own_and_all_else_stays(tmp_path: Path) -> None:
    rows = example_rows()
    once = split(rows, tmp_path / "once")
    dataset = datasets.Dataset.from_list(rows)
    manifest = make_splits(dataset, PROMPT, COMPLETION, 20, 15, 3, tmp_path / "turns", "here", turns=3)
    before, after = read_all(tmp_path / "once"), read_all(tmp_path / "turns")
    for name in ("validation", "proof", "test"):
        assert after[name] == before[name]
    assert {name: manifest.counts[name] for name in ("validation-2", "validation-3")} == dict.fromkeys(
        ("validation-2", "validation-3"), once.counts["validation"]
    )
    prompts = {name: {normalised(row.prompt) for row in found} for name, found in after.items()}
    for one, other in itertools.combinations(prompts, 2):
        assert not prompts[one] & prompts[other], (one, other)
    assert after["train"] == [row for row in before["train"] if row in after["train"]]


def test_too_few_rows_to_rotate_are_said_with_what_is_asked(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(example_rows())
    with pytest.raises(UserError, match=r"data\.validation: \d+ \(20 a round, 50 rounds\) and data\.test: 15 take"):
        make_splits(dataset, PROMPT, COMPLETION, 20, 15, 3, tmp_path, "here", turns=50)


@pytest.mark.parametrize("value", [[{"role": "user", "content": "hi"}], {"text": "hi"}, b"hi"])
def test_a_column_that_is_no_text_is_named(tmp_path: Path, value: object) -> None:
    rows = datasets.Dataset.from_list([{"a": f"{i}", "messages": value} for i in range(40)])
    with pytest.raises(
        UserError, match=r"data\.completion: '\{messages\}' names the column 'messages', which"
    ) as caught:
        make_splits(rows, "{a}", "{messages}", 5, 5, 0, tmp_path, source="here")
    assert "\n" not in str(caught.value)
