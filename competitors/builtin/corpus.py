"""The plain text that the built-in base models learn before any competition: simple English sentences.

Statements only, no question and no instruction: a base that has read it writes fluently about the small world
of the built-in data, and has yet to learn to answer.
"""

from collections.abc import Callable
from random import Random


def _words(text: str) -> list[str]:
    return text.split()


ANIMALS = _words("dog cat horse cow pig sheep goat duck hen lion tiger bear wolf fox mouse rabbit frog")
FOODS = _words("apple pear plum grape lemon orange banana cherry peach melon carrot potato onion bean leek cabbage")
CLOTHES = _words("shirt coat hat shoe sock dress scarf glove")
GOODS = _words(
    "chair table bed sofa desk shelf hammer saw axe spade drill brush car bus train bike boat plane ship truck"
)
DRINKS = _words("water milk tea juice coffee")
NAMES = _words("Anna Tom Ben Lucy Sam Mary Jack Emma Paul Kate Max Nina Leo Rosa")
PLACES = _words("park school garden market library beach farm station kitchen forest")
CITIES = _words(
    "Paris/France Madrid/Spain Rome/Italy Berlin/Germany London/England Tokyo/Japan Beijing/China Cairo/Egypt "
    "Athens/Greece Moscow/Russia Havana/Cuba Lima/Peru Nairobi/Kenya Oslo/Norway Stockholm/Sweden "
    "Vienna/Austria Lisbon/Portugal Warsaw/Poland Dublin/Ireland Ottawa/Canada"
)
COLOURS = _words("red yellow green blue white black orange brown pink grey")
QUALITIES = _words(
    "hot cold big small fast slow old new good bad happy sad full empty open closed long short high low hard "
    "soft wet dry rich poor strong weak light dark early late loud quiet clean dirty thick thin near far wide "
    "narrow true false first last"
)
PAIRS = [pair for a, b in zip(QUALITIES[::2], QUALITIES[1::2], strict=True) for pair in ((a, b), (b, a))]
DEEDS = _words(
    "walked played jumped looked helped cooked cleaned called worked talked went ran sang wrote swam slept "
    "drove fell opened wanted saw ate took made gave came found bought drank knew"
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NUMBERS = _words("zero one two three four five six seven eight nine ten")
MATTER = _words("sky sea sun moon star snow grass tree leaf night rain fire lake house wall ball king ring blood coal")
GROUPS = _words(
    "animal fruit vegetable vehicle tool drink word letter number city country colour day month rhyme plural"
)
IRREGULAR = {"sheep": "sheep", "mouse": "mice", "wolf": "wolves", "shelf": "shelves"}


def corpus(seed: int, documents: int) -> list[str]:
    """`documents` short texts of two to five sentences each, the same for the same seed everywhere."""
    random = Random(f"corpus/{seed}")
    return [document(random) for _ in range(documents)]


def document(random: Random) -> str:
    """A text about few things: what was named once comes again, so that a model learns to look back."""
    words = {mark: [draw(random) for _ in range(2)] for mark, draw in DRAWS.items()}
    return " ".join(sentence(random, words) for _ in range(random.randint(2, 5)))


def sentence(random: Random, words: dict[str, list[str]]) -> str:
    """One sentence of a random pattern, each mark in braces replaced by one of the document's words of its kind."""
    text = random.choice(PATTERNS)
    for mark, choices in words.items():
        while mark in text:
            text = text.replace(mark, random.choice(choices), 1)
    return text[0].upper() + text[1:]


def thing(random: Random) -> str:
    return random.choice(random.choice((ANIMALS, FOODS, CLOTHES, GOODS)))


def listed(random: Random) -> str:
    return ", ".join(thing(random) for _ in range(random.randint(2, 5)))


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def number(random: Random) -> str:
    return str(random.randint(0, random.choice((10, 20, 100))))


def counted(random: Random) -> str:
    start, step = random.randint(0, 90), random.choice((1, 1, 2, 3, 5, 10))
    return ", ".join(str(start + step * i) for i in range(random.randint(3, 5)))


def run_of(words: list[str]) -> Callable[[Random], str]:
    """Three neighbours of a cycle, as Sunday, Monday, Tuesday."""

    def draw(random: Random) -> str:
        start = random.randrange(len(words))
        return ", ".join((words * 2)[start : start + 3])

    return draw


def one_and_two(random: Random) -> str:
    noun = thing(random)
    return f"one {noun} and two {many(noun)}"


def many(noun: str) -> str:
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "to")) else "s")


DRAWS: dict[str, Callable[[Random], str]] = {
    "{a thing}": lambda random: article(thing(random)),
    "{thing}": thing,
    "{things}": lambda random: many(thing(random)),
    "{animal}": lambda random: random.choice(ANIMALS),
    "{drink}": lambda random: random.choice(DRINKS),
    "{name}": lambda random: random.choice(NAMES),
    "{place}": lambda random: random.choice(PLACES),
    "{city}": lambda random: random.choice(CITIES).split("/")[0],
    "{country}": lambda random: random.choice(CITIES).split("/")[1],
    "{city in country}": lambda random: random.choice(CITIES).replace("/", " in "),
    "{capital}": lambda random: "{} is the capital of {}".format(*random.choice(CITIES).split("/")),
    "{not but}": lambda random: "not {} but {}".format(*random.choice(PAIRS)),
    "{list}": listed,
    "{counted}": counted,
    "{days}": run_of(DAYS),
    "{months}": run_of(MONTHS),
    "{one many}": one_and_two,
    "{colour}": lambda random: random.choice(COLOURS),
    "{quality}": lambda random: random.choice(QUALITIES),
    "{a quality}": lambda random: article(random.choice(QUALITIES)),
    "{did}": lambda random: random.choice(DEEDS),
    "{day}": lambda random: random.choice(DAYS),
    "{month}": lambda random: random.choice(MONTHS),
    "{n}": number,
    "{count}": lambda random: random.choice(NUMBERS),
    "{element}": lambda random: random.choice(MATTER),
    "{group}": lambda random: random.choice(GROUPS),
}

PATTERNS = [
    "{name} has {a thing} and {count} {things}.",
    "{name} {did} in the {place} with {name}.",
    "{name} {did} {a thing} on {day}.",
    "{name} took {a thing} to the {place}.",
    "{name} lives in {city in country}.",
    "{name} went from {city} to {country} in {month}.",
    "the {thing} of {name} is {colour}.",
    "the {thing} is {quality} and the {thing} is {quality}.",
    "the {animal} {did} near the {place}.",
    "the {element} is {quality} but the {element} is {colour}.",
    "in {month} the {element} is {quality}.",
    "on {day} {name} {did} and then {name} {did}.",
    "there are {count} {things} in the {place}.",
    "there is {a thing} under the {element}.",
    "{name} wants to drink {drink} with the {animal}.",
    "{name} bought {n} {things} and gave {n} to {name}.",
    "the bus number {n} goes to the {place}.",
    "{name} is {n} years old and likes {things}.",
    "the word {thing} is {a quality} word.",
    "{name} has {a quality} {group} for {name}.",
    "this is {a thing}, and that is {a thing}, not {a thing}.",
    "{things}, {things} and {things} are in the {place}.",
    "thank you for the {thing}, dear {name}.",
    "we do not know which {group} is {quality}, or what the {animal} did.",
    "page {n}, {n} and {n} of the book are about the {element}.",
    "yes, {name} can find the {thing}, and no, it does not belong to {name}.",
    "{name} said that the {quality} {group} comes after the {quality} {group}.",
    "the {place} is on the opposite side of the {element}.",
    "{city} is the capital of a {quality} country.",
    "{capital}.",
    "{capital}, said {name}.",
    "the {thing} of {name} is {not but}.",
    "it was {not but} in the {place}.",
    "{name} said {list}, and {name} said {list}.",
    "{name} wrote {list}.",
    "{name} wrote {list} on a list in {city}.",
    "{name} counted {counted}.",
    "the numbers are {counted}, said {name}.",
    "the days are {days}, the months are {months}.",
    "{name} worked on {days}.",
    "we saw {one many}.",
    "the past was {quality} and the next {month} will be {quality}.",
    "the letter of {name} starts with {a quality} list and ends with {a quality} sentence.",
    "the middle of the {place} is larger than the {element}.",
    "the order of the numbers {n} and {n} is {quality}.",
    "{a thing} is a piece of furniture, {a thing} is a piece of clothing.",
    "it was {day}, the {n} of {month}, and the {animal} was {quality}.",
]
