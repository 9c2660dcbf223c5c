"""The tasks of the built-in data, how each is phrased and what its right answer is, as (instruction, response)."""

from collections.abc import Iterable, Mapping
from itertools import product
from random import Random

from evaluation.builtin.words import (
    CAPITALS,
    COLOUR_OF,
    COUNTS,
    DAYS,
    KIND_OF,
    KINDS,
    MONTHS,
    NAMES,
    OPPOSITES,
    PAST,
    PLACES,
    RHYMES,
    THINGS,
    UNCOUNTED,
    article,
    plural,
)

Pairs = Iterable[tuple[str, str]]  # (instruction, response)


def phrased(phrasings: list[tuple[str, str]], facts: Iterable[Mapping[str, object]]) -> Pairs:
    """Every fact in every (instruction, response) phrasing. A phrasing settles the form of its answer."""
    for fact, (instruction, response) in product(facts, phrasings):
        yield instruction.format(**fact), response.format(**fact)


def addition(random: Random) -> Pairs:
    facts = ({"a": a, "b": b, "c": a + b} for a in range(1, 11) for b in range(1, 11))
    yield from phrased(
        [
            ("What is {a} plus {b}?", "{a} plus {b} is {c}."),
            ("Add {a} and {b}.", "The sum is {c}."),
            ("Tom has {a} apples and gets {b} more. How many now?", "Tom has {c} apples."),
            ("{a} + {b} =", "{c}"),
        ],
        facts,
    )


def subtraction(random: Random) -> Pairs:
    facts = ({"a": a, "b": b, "c": a - b} for a in range(2, 17) for b in range(1, min(a, 10)))
    yield from phrased(
        [
            ("What is {a} minus {b}?", "{a} minus {b} is {c}."),
            ("Take {b} from {a}.", "{c} is left."),
            ("{a} - {b} =", "{c}"),
        ],
        facts,
    )


def comparison(random: Random) -> Pairs:
    numbers = [(random.randint(1, 60), random.randint(1, 60)) for _ in range(300)]
    facts = ({"a": a, "b": b, "low": min(a, b), "high": max(a, b)} for a, b in numbers if a != b)
    yield from phrased(
        [
            ("Which is larger, {a} or {b}?", "{high} is larger than {low}."),
            ("Which number is smaller: {a} or {b}?", "The smaller number is {low}."),
            ("Give the bigger one of {a} and {b}.", "{high}"),
        ],
        facts,
    )


def neighbours(random: Random) -> Pairs:
    facts = ({"n": n, "after": n + 1, "before": n - 1} for n in range(1, 100))
    yield from phrased(
        [
            ("What number comes after {n}?", "{after} comes after {n}."),
            ("What number comes before {n}?", "{before} comes before {n}."),
            ("Count one up from {n}.", "The next number is {after}."),
        ],
        facts,
    )


def sequences(random: Random) -> Pairs:
    starts = [(a, step) for step in (1, 2, 3, 5, 10) for a in range(1, 31)]
    facts = ({"s": f"{a}, {a + d}, {a + 2 * d}", "next": a + 3 * d} for a, d in starts)
    yield from phrased(
        [
            ("What comes next: {s}?", "The next number is {next}."),
            ("Continue the row {s}.", "{s}, {next}"),
        ],
        facts,
    )


def sorting(random: Random) -> Pairs:
    for _ in range(200):
        numbers = random.sample(range(1, 40), 3)
        listed, up = (", ".join(map(str, some)) for some in (numbers, sorted(numbers)))
        yield f"Sort these numbers from low to high: {listed}.", f"In order: {up}."
        words = random.sample(THINGS, 3)
        yield f"Put in ABC order: {', '.join(words)}.", f"{', '.join(sorted(words))}"


def opposites(random: Random) -> Pairs:
    facts = [{"a": a, "b": b} for pair in OPPOSITES.items() for a, b in (pair, pair[::-1])]
    yield from phrased(
        [
            ("What is the opposite of {a}?", "The opposite of {a} is {b}."),
            ("Give the opposite of the word {a}.", "{b}"),
            ("Finish the sentence: not {a} but ...", "not {a} but {b}"),
            ("Name a word that means the reverse of {a}.", "The reverse of {a} is {b}."),
            ("Opposite of {a}?", "It is {b}."),
            ("Which word is against {a}?", "The word {b} is against {a}."),
        ],
        facts,
    )


def plurals(random: Random) -> Pairs:
    facts = [{"one": n, "a": article(n), "many": plural(n)} for n in THINGS if n not in UNCOUNTED]
    yield from phrased(
        [
            ("What is the plural of {one}?", "The plural of {one} is {many}."),
            ("One {one}, two ...", "two {many}"),
            ("Write the word {one} for more than one.", "{many}"),
            ("I have {a}. Now say that I have three.", "I have three {many}."),
            ("What do we call many of {a}?", "We call them {many}."),
        ],
        facts,
    )


def past_tense(random: Random) -> Pairs:
    facts = [{"now": a, "past": b, "name": name} for a, b in PAST.items() for name in NAMES[:3]]
    yield from phrased(
        [
            ("What is the past tense of {now}?", "The past tense of {now} is {past}."),
            ("Today I {now}. Yesterday I ...", "Yesterday I {past}."),
            ("Put the verb {now} in the past.", "{past}"),
            ("{name} will {now}. Say it in the past.", "{name} {past}."),
            ("What did {name} do, if the verb is {now}?", "{name} {past} yesterday."),
        ],
        facts,
    )


def capitals(random: Random) -> Pairs:
    facts = [{"country": country, "city": city} for country, city in CAPITALS.items()]
    yield from phrased(
        [
            ("What is the capital of {country}?", "The capital of {country} is {city}."),
            ("Name the capital city of {country}.", "{city}"),
            ("Which country has the capital {city}?", "{city} is the capital of {country}."),
            ("In which country is {city}?", "{city} is in {country}."),
            ("Where does the government of {country} sit?", "It sits in {city}."),
            ("Tell me the main city of {country}.", "The main city is {city}."),
            ("{city} is the capital of ...", "{country}"),
            ("I go from home to {city}. Which country do I visit?", "You visit {country}."),
            ("I am in the capital of {country}. Where am I?", "You are in {city}."),
            ("Is {city} a city or a country?", "{city} is a city."),
            ("Is {country} a city or a country?", "{country} is a country."),
        ],
        facts,
    )


def categories(random: Random) -> Pairs:
    facts = [{"a": article(t), "t": t, "kind": k, "a_kind": article(k)} for t, k in KIND_OF.items()]
    yield from phrased(
        [
            ("What kind of thing is {a}?", "It is a kind of {kind}."),
            ("Name the group that {a} belongs to.", "{kind}"),
            ("Put the word {t} in a group.", "The group of {t} is {kind}."),
            ("What is {a}?", "It is {a_kind}."),
            ("Which group has {t} in it?", "The group {kind} has it."),
        ],
        facts,
    )


def colours(random: Random) -> Pairs:
    facts = [{"t": thing, "T": thing[0].upper() + thing[1:], "c": c} for thing, c in COLOUR_OF.items()]
    yield from phrased(
        [
            ("What colour is {t}?", "{T} is {c}."),
            ("Name the colour of {t}.", "{c}"),
            ("I want to paint {t}. Which paint?", "Take {c} paint."),
            ("Tell me how {t} looks.", "It looks {c}."),
            ("Which colour do you see on {t}?", "You see {c}."),
            ("Say the colour: {t}.", "The colour is {c}."),
            ("Finish the sentence: {t} is ...", "{t} is {c}"),
            ("What would a child use to draw {t}?", "A {c} pen."),
        ],
        facts,
    )


def letters(random: Random) -> Pairs:
    facts = [{"w": t, "first": t[0], "last": t[-1]} for t in THINGS]
    yield from phrased(
        [
            ("What is the first letter of {w}?", "The first letter of {w} is {first}."),
            ("What is the last letter of {w}?", "The last letter of {w} is {last}."),
            ("Which letter does {w} start with?", "It starts with {first}."),
            ("Which letter does {w} end with?", "It ends with {last}."),
        ],
        facts,
    )


def positions(random: Random) -> Pairs:
    for _ in range(120):
        words = random.sample(THINGS, 3)
        listed = ", ".join(words)
        yield f"Give the first word: {listed}.", words[0]
        yield f"Give the last word: {listed}.", words[-1]
        yield f"Which word is in the middle: {listed}?", f"The word in the middle is {words[1]}."


def counting(random: Random) -> Pairs:
    for _ in range(160):
        words = random.sample(THINGS, random.randint(2, 6))
        listed, number = ", ".join(words), COUNTS[len(words)]
        yield f"How many words are in this list: {listed}?", f"There are {number} words."
        yield f"Count the things: {listed}.", number


def odd_one_out(random: Random) -> Pairs:
    for _ in range(160):
        kind, other = random.sample([k for k in KINDS if k != "drink"], 2)
        odd = random.choice(KINDS[other].split())
        words = [*random.sample(KINDS[kind].split(), 3), odd]
        random.shuffle(words)
        listed = ", ".join(words)
        yield f"Which one does not belong: {listed}?", f"The {odd} does not belong."
        yield f"Find the odd one out: {listed}.", odd


def yes_or_no(random: Random) -> Pairs:
    for thing, kind in KIND_OF.items():
        if thing in UNCOUNTED:
            continue
        for asked in (kind, random.choice([k for k in KINDS if k not in (kind, "drink")])):
            yes, a = asked == kind, article(thing)
            verdict = f"Yes, {a} is" if yes else f"No, {a} is not"
            yield f"Is {a} {article(asked)}?", f"{verdict} {article(asked)}."
            yield f"True or false: {a} is {article(asked)}.", "true" if yes else "false"


def rhymes(random: Random) -> Pairs:
    facts = [{"a": a, "b": group[(i + 1) % len(group)]} for group in RHYMES for i, a in enumerate(group)]
    yield from phrased(
        [
            ("Name a word that rhymes with {a}.", "{b}"),
            ("What rhymes with {a}?", "{b} rhymes with {a}."),
            ("Give me a rhyme for {a}.", "A rhyme for {a} is {b}."),
            ("Find a word that sounds like {a}.", "{b} sounds like {a}."),
            ("I need a rhyme: {a} and ...", "{a} and {b}"),
            ("My line ends with {a}. How may the next line end?", "It may end with {b}."),
        ],
        facts,
    )


def extraction(random: Random) -> Pairs:
    for _ in range(130):
        (who, friend), place, thing = random.sample(NAMES, 2), random.choice(PLACES), random.choice(THINGS)
        text = f"{who} took {article(thing)} to the {place} with {friend}."
        yield f"{text} Where did {who} go?", f"{who} went to the {place}."
        yield f"{text} Who went with {who}?", f"{friend} went with {who}."
        yield f"{text} What did {who} take?", f"{who} took {article(thing)}."


def templates(random: Random) -> Pairs:
    for _ in range(130):
        name, thing, place = random.choice(NAMES), random.choice(THINGS), random.choice(PLACES)
        yield f"Thank {name} for {article(thing)}.", f"Dear {name}, thank you for the {thing}."
        yield f"Ask {name} to come to the {place}.", f"Dear {name}, please come to the {place}."
        yield f"Name: {name}. Thing: {thing}. Make a sentence.", f"{name} has {article(thing)}."


def calendar(random: Random) -> Pairs:
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        facts = [{"k": kind, "a": a, "b": names[(i + 1) % len(names)]} for i, a in enumerate(names)]
        yield from phrased(
            [
                ("Which {k} comes after {a}?", "{b} comes after {a}."),
                ("Which {k} comes before {b}?", "{a} comes before {b}."),
                ("Name the {k} after {a}.", "{b}"),
                ("Name the {k} before {b}.", "{a}"),
                ("This {k} is {a}. What is the next {k}?", "The next {k} is {b}."),
                ("This {k} is {b}. What was the last {k}?", "The last {k} was {a}."),
                ("Is {a} a day or a month?", "{a} is a {k}."),
                ("{a} is over. What begins?", "{b} begins."),
            ],
            facts,
        )
