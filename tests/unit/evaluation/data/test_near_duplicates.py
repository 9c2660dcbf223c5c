"""No training row says nearly what a held-out one says, and no group of held-out rows lies on both sides."""

import random
import string
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from cluster.errors import BrokenRecord, UserError
from evaluation.data.assignment import catalogue
from evaluation.data.likeness import MANY
from evaluation.data.near_duplicates import SIDES, HeldOutIndex, Pair
from evaluation.data.splits import Manifest, Row, file_of, make_splits, read_held_out, read_split
from tests.unit.evaluation.submissions.making import held_out

WORDS = [a + b + c for a in ("ba", "ki", "lo", "mu", "se", "tra") for b in ("n", "rd", "st", "m") for c in "aeo"]
NEAR = "near-duplicate of a held-out row"
STORY = (
    "Betty is saving money for a new wallet which costs $100. Her parents gave her $15 for that purpose, and her "
    "grandparents twice as much as her parents. How much more money does Betty need to buy the wallet?"
)


def text(rng: random.Random, sentences: int = 3) -> str:
    return " ".join(" ".join(rng.choices(WORDS, k=9)).capitalize() + "." for _ in range(sentences))


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"instruction": text(rng), "response": text(rng)} for _ in range(count)]


def split(rows: list[dict[str, Any]], out: Path, validation: int = 20, test: int = 20, **more: Any) -> Manifest:
    dataset = datasets.Dataset.from_list(rows)
    return make_splits(dataset, "{instruction}\n", "{response}", validation, test, 3, out, "here", **more)


def read_all(out: Path) -> dict[str, list[Row]]:
    return {file.stem: read_split(file) for file in out.rglob("*.parquet")}


def one_word_changed(given: str) -> str:
    words = given.split(" ")
    words[len(words) // 2] = "otherwise"
    return " ".join(words)


def sentences_swapped(given: str) -> str:
    first, *others = given.rstrip(".?").split(". ")
    return ". ".join([*others, first])


CHANGES = {
    "nothing": lambda t: t,
    "case": str.upper,
    "no punctuation": lambda t: t.translate(str.maketrans("", "", string.punctuation)),
    "punctuation for spaces": lambda t: t.translate(str.maketrans(dict.fromkeys(string.punctuation, " "))),
    "more punctuation": lambda t: t.replace(" ", ", ") + "!!",
    "white space": lambda t: t.replace(" ", "\n\t "),
    "full width": lambda t: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in t),
    "Cyrillic look-alikes": lambda t: t.translate(str.maketrans("aeopcxyBHTM", "аеорсхуВНТМ")),
    "Greek look-alikes": lambda t: t.translate(str.maketrans("oavkntHB", "οανκητΗΒ")),
    "unseen characters": lambda t: t.replace("e", "e\u200b"),
    "one word": one_word_changed,
    "sentences swapped": sentences_swapped,
    "a word before": lambda t: "Question: " + t,
    "a word without end": lambda t: t + " indeed" * 60,
}


def index_of(*rows: Pair, sample: list[Pair] | None = None) -> HeldOutIndex:
    index = HeldOutIndex([sample or list(rows)])
    for key, row in enumerate(rows):
        index.add(key, row)
    return index


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("side", SIDES)
def test_what_is_changed_a_little_touches(change: str, side: str):
    rng = random.Random(1)
    for original in (STORY, text(rng), text(rng, sentences=2)):
        other, changed = text(rng), CHANGES[change](original)
        pairs = [(original, "yes"), (changed, other)] if side == "prompt" else [(other, original), ("Why?", changed)]
        (touches,) = index_of(pairs[0]).touched_by([pairs[1]])
        assert [(touch.held_out, touch.side) for touch in touches] == [(0, side)]
        assert touches[0].share >= 0.5


@pytest.mark.parametrize("word", ["otherwise", "I"])
def test_a_word_changed_anywhere_in_a_text_without_spaces_touches(word: str):
    chinese = "请根据下面的文章回答问题，并且用一句话说明理由。小明昨天去了北京的图书馆，借了三本关于历史和地理的书。"
    assert index_of((chinese, "x")).touched_by([(chinese.replace("北京", "上海"), word)])[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 plus 7?", "what is  12 PLUS 7"),
        ("Is it “so”?", "Is it 'so'!"),
        ("Why not?", "Whу nоt?"),
        ("Why not?", "W\u200bhy no\u00adt"),
    ],
)
def test_short_prompts_are_the_same_but_for_case_and_marks(one: str, other: str):
    assert [t.is_same for t in index_of((one, "yes")).touched_by([(other, "no")])[0]] == [True]


FORM = "Read the following review of a product and say whether its author liked the product or not. Review: {}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Labels and common answers are many rows' own.
        (("Is fire cold?", "no"), ("Is ice warm?", "no")),
        (("Which one?", "The answer is (B)."), ("And which?", "The answer is (B).")),
        # A word is all that these say.
        (("What is 12 plus 7?", "19"), ("What is 12 plus 8?", "20")),
        (("What is the capital of France?", "Paris"), ("What is the capital of Greece?", "Athens")),
        (("What is 1.5 times 3?", "4.5"), ("What is 15 times 3?", "45")),
        (("What is 5 - 3?", "2"), ("What is 5 + 3?", "8")),
        (("?", "a mark"), ("!", "another mark")),
        # Other stories.
        (
            (STORY, "5"),
            ("Weng earns $12 an hour for babysitting. Yesterday, she did 50 minutes of it. How much?", "10"),
        ),
    ],
)
def test_what_is_not_alike_does_not_touch(one: Pair, other: Pair):
    assert index_of(one, sample=[one, other]).touched_by([other]) == [[]]


def test_a_form_that_many_rows_fill_in_is_nobodys_own():
    rng = random.Random(2)
    filled = [(FORM.format(text(rng, sentences=1)), "positive") for _ in range(3 * MANY)]
    index = index_of(*filled[:10], sample=filled)
    assert index.touched_by(filled[10:]) == [[]] * (len(filled) - 10)
    # What they are filled in with is.
    changed = "Hello. " + one_word_changed(filled[3][0])
    assert [touch.held_out for touch in index.touched_by([(changed, "negative")])[0]] == [3]


def test_training_rows_go_and_the_manifest_says_so(tmp_path: Path):
    rows = rows_of(200)
    assert split(rows, tmp_path / "without").dropped == {}
    without = read_all(tmp_path / "without")
    known, rng = without["validation"] + without["proof"] + without["test"], random.Random(7)
    copies = [{"instruction": "Say " + one_word_changed(row.prompt), "response": text(rng)} for row in known]
    copies += [{"instruction": text(rng), "response": sentences_swapped(row.completion)} for row in known]
    for handling, kept in (("remove", 0), ("keep", 1)):
        manifest = split(rows + copies, tmp_path / handling, slice_rows=20, near_duplicates=handling)
        found, near = read_all(tmp_path / handling), manifest.near_duplicates
        assert near is not None
        assert near.handling == handling
        assert near.rows >= 40  # some of the copies are held out themselves
        assert near.rows <= near.by["prompt"] + near.by["completion"]
        assert manifest.dropped == ({} if kept else {NEAR: near.rows})
        assert manifest.rows_read == sum(manifest.counts.values()) + sum(manifest.dropped.values())
        assert [e.side for e in near.examples] == ["prompt"] * 3 + ["completion"] * 3
        assert all(len(e.text) <= 120 and 0.5 <= e.share <= 1 for e in near.examples)
        held = [(row.prompt, row.completion) for name in ("validation", "proof", "test") for row in found[name]]
        others = [(row.prompt, row.completion) for name in ("train", "slice") for row in found[name]]
        touching = sum(bool(touches) for touches in index_of(*held).touched_by(others))
        assert touching == kept * near.rows
    assert Manifest.read(tmp_path / "keep" / "manifest.json") == manifest
    held_out_files = [read_all(tmp_path / name)["test"] for name in ("remove", "keep")]
    assert held_out_files[0] == held_out_files[1]


def test_examples_show_nothing_that_is_held_out(tmp_path: Path):
    rows = rows_of(120)
    split(rows, tmp_path / "without")
    row = read_all(tmp_path / "without")["test"][0]
    marked = [{**r, "response": r["response"] + " XYZZY"} if r["instruction"] in row.prompt else r for r in rows]
    manifest = split([*marked, {"instruction": "Now: " + row.prompt, "response": "what"}], tmp_path / "with")
    assert manifest.near_duplicates is not None
    assert [(e.split, e.side) for e in manifest.near_duplicates.examples] == [("test", "prompt")]
    assert "XYZZY" not in (tmp_path / "with" / "manifest.json").read_text()


def clusters(count: int, size: int) -> list[dict[str, Any]]:
    """Rows of which `size` each are alike: their texts have each another word changed."""
    rng, rows = random.Random(11), []
    for _ in range(count):
        words = text(rng).split(" ")
        for place in range(size):
            changed = [*words[:place], rng.choice(WORDS), *words[place + 1 :]]
            rows.append({"instruction": " ".join(changed), "response": text(rng)})
    return rows


def test_groups_of_near_duplicates_never_straddle_the_splits(tmp_path: Path):
    rows = clusters(60, 3) + rows_of(60)
    cluster_of = {row["instruction"] + "\n": place // 3 if place < 180 else place for place, row in enumerate(rows)}
    manifest = split(rows, tmp_path / "a", 60, 60)
    found, near = read_all(tmp_path / "a"), manifest.near_duplicates
    sides = [{cluster_of[row.prompt] for row in found[name]} for name in ("train", "validation", "proof", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for name, in_it in zip(("validation", "proof", "test"), sides[1:], strict=True):
        groups = read_held_out(tmp_path / "a" / file_of(name))[1]
        assert groups.dtype == "int64"
        pairs = {(cluster_of[row.prompt], group) for row, group in zip(found[name], groups.tolist(), strict=True)}
        assert len(pairs) == len(in_it) == len(set(groups.tolist())) < 60
        assert near is not None
        assert near.groups[name] == len(in_it)
        assert groups[0] == 0
    random.Random(0).shuffle(rows)
    assert split(rows, tmp_path / "b", 60, 60) == manifest
    for name in ("train", "validation", "proof", "test"):
        assert (tmp_path / "a" / file_of(name)).read_bytes() == (tmp_path / "b" / file_of(name)).read_bytes()


def test_rows_of_a_declared_group_stay_together(tmp_path: Path):
    rows = [
        {**row, "talk": f"t{place // 4}" if place < 160 else (None, " ")[place % 2]}
        for place, row in enumerate(rows_of(200))
    ]
    rows[5]["instruction"] = rows[100]["instruction"]  # one prompt in two of them: they are one
    talk_of = {row["response"]: (row["talk"] or "").strip() or row["response"] for row in rows}
    talk_of |= {row["response"]: "t1" for row in rows if row["talk"] == "t25"}
    manifest = split(rows, tmp_path, 40, 40, group="talk")
    assert manifest.group == "talk"
    found = read_all(tmp_path)
    sides = [{talk_of[row.completion] for row in found[name]} for name in ("train", "validation", "proof", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for name, talks in zip(("validation", "proof", "test"), sides[1:], strict=True):
        groups = read_held_out(tmp_path / file_of(name))[1].tolist()
        named = {(talk_of[row.completion], group) for row, group in zip(found[name], groups, strict=True)}
        assert len(named) == len(talks) == len(set(groups))
    with pytest.raises(UserError, match=r"data\.group: there is no column 'talks'; the columns are"):
        split(rows, tmp_path, group="talks")


def test_a_large_declared_group_is_not_likelier_to_be_held_out():
    pairs, talks = [(f"prompt {n}", "x") for n in range(40)], ["big" if n < 10 else None for n in range(40)]
    places = []
    for seed in range(200):
        rows = catalogue(pairs, talks, seed, Counter())
        units = list(rows.in_units(range(len(rows))))
        assert sorted(map(len, units)) == [1] * 30 + [10]
        places.append(max(range(31), key=lambda place: len(units[place])))
    assert 13 < sum(places) / len(places) < 17
    assert min(places) < 3


def test_a_text_that_very_many_are_like_is_a_form_but_for_its_copies(tmp_path: Path):
    rng = random.Random(4)
    words = text(rng, sentences=9).split(" ")
    index = index_of((" ".join(words), "x"))
    found = []
    for place in range(2 * MANY):
        changed = [*words[:place], "otherwise", *words[place + 1 :]]
        (touches,) = index.touched_by([(" ".join(changed), "y")])
        index.count(touches)
        found += touches
    assert len(found) == MANY + 1  # from then on it is no longer looked for
    assert not any(index.is_meant(touch) for touch in found)
    assert index.forms == {"prompt": 1, "completion": 0}
    (touches,) = index.touched_by([(" ".join(words).upper(), "y")])
    assert [index.is_meant(touch) for touch in touches] == [True]


def test_groups_of_a_file_without_them_are_the_prompts(tmp_path: Path):
    prompts = ["a b", "c", "A  b ", "d", "c"]
    folder = held_out(tmp_path, [Row(str(i), prompt, "x") for i, prompt in enumerate(prompts)])
    assert read_held_out(folder / "validation.parquet")[1].tolist() == [0, 1, 0, 2, 1]
    (folder / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(BrokenRecord, match=r"test\.parquet: is cut off or damaged"):
        read_held_out(folder / "test.parquet")[1]


def test_training_rows_carry_no_group(tmp_path: Path):
    split(rows_of(60), tmp_path)
    names = {name: pq.read_schema(tmp_path / file_of(name)).names for name in ("train", "validation")}
    assert names == {"train": ["row_id", "prompt", "completion"], "validation": [*names["train"], "group"]}


def test_where_nearly_all_rows_are_alike_the_error_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.test: 2 .* near-duplicates of held-out rows; got 5 .* 0 for train"):
        split(clusters(4, 5), tmp_path, 5, 2)
