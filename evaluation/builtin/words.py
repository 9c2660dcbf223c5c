"""The words that the built-in data is made of, a few hundred, and the little grammar they need."""


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, str]:
    """`a/b c/d` as {a: b, c: d}."""
    return dict(pair.split("/") for pair in text.split())


KINDS = {
    "animal": "dog cat horse cow pig sheep goat duck hen lion tiger bear wolf fox mouse rabbit frog",
    "fruit": "apple pear plum grape lemon orange banana cherry peach melon",
    "vegetable": "carrot potato onion bean cabbage leek",
    "piece of clothing": "shirt coat hat shoe sock dress scarf glove",
    "piece of furniture": "chair table bed sofa desk shelf",
    "tool": "hammer saw axe spade drill brush",
    "vehicle": "car bus train bike boat plane truck ship",
    "drink": "water milk tea juice coffee",
}
KIND_OF = {thing: kind for kind, things in KINDS.items() for thing in things.split()}
THINGS = sorted(KIND_OF)
IRREGULAR_PLURALS = {"sheep": "sheep", "wolf": "wolves", "mouse": "mice", "shelf": "shelves"}
UNCOUNTED = set(KINDS["drink"].split())

OPPOSITES = _pairs(
    "hot/cold big/small fast/slow up/down left/right old/new day/night good/bad happy/sad full/empty "
    "open/closed long/short high/low hard/soft wet/dry rich/poor strong/weak light/dark early/late "
    "loud/quiet clean/dirty thick/thin near/far wide/narrow true/false first/last"
)
PAST = _pairs(
    "walk/walked play/played jump/jumped look/looked help/helped open/opened cook/cooked clean/cleaned "
    "call/called want/wanted work/worked talk/talked go/went see/saw eat/ate run/ran take/took make/made "
    "give/gave come/came find/found buy/bought sing/sang write/wrote swim/swam drink/drank sleep/slept "
    "drive/drove fall/fell know/knew"
)
CAPITALS = _pairs(
    "France/Paris Spain/Madrid Italy/Rome Germany/Berlin England/London Japan/Tokyo China/Beijing "
    "Egypt/Cairo Greece/Athens Russia/Moscow Cuba/Havana Peru/Lima Kenya/Nairobi Norway/Oslo "
    "Sweden/Stockholm Austria/Vienna Portugal/Lisbon Poland/Warsaw Ireland/Dublin Canada/Ottawa"
)
COLOURS = {
    "red": "blood a~cherry a~fire~truck",
    "yellow": "a~banana a~lemon the~sun butter",
    "green": "grass a~leaf a~frog a~pea",
    "blue": "the~sky the~sea",
    "white": "snow milk salt a~swan",
    "black": "coal the~night a~crow",
    "orange": "a~carrot a~pumpkin",
    "brown": "chocolate wood a~potato",
    "pink": "a~pig",
    "grey": "an~elephant ash",
}
COLOUR_OF = {thing.replace("~", " "): c for c, things in COLOURS.items() for thing in things.split()}
RHYMES = [
    group.split("/")
    for group in _words(
        "cat/hat/bat dog/frog/log sun/run/fun night/light/right tree/bee/sea cake/lake/snake house/mouse "
        "ball/wall/tall rain/train/plane moon/spoon/soon king/ring/sing bear/chair/hair goat/boat/coat "
        "bed/red/head day/play/way car/star/far"
    )
]
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NAMES = _words("Anna Tom Ben Lucy Sam Mary Jack Emma Paul Kate Max Nina Leo Rosa")
PLACES = _words("park school garden market library beach farm station kitchen forest")
COUNTS = _words("zero one two three four five six")


def article(noun: str) -> str:
    return noun if noun in UNCOUNTED else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "to")) else "s")
