"""The words captions are made of: distances, sizes, colours, names of things and places."""

from __future__ import annotations

import numpy as np

DISTANCE_LIMITS = {"indoor": (1.1, 1.6, 2.2, 3.1, 4.3, 6.0), "road": (6.0, 10.0, 16.0, 25.0, 38.0, 58.0)}  # metres between the 7 levels

# What may be said of a thing at each level of distance, nearest first; the first of each is the human scale's own word
DISTANCES: tuple[tuple[str, ...], ...] = (
    ("very close", "very close", "very close", "extremely close", "very near", "right in front of the camera",
        "within reach", "at arm's length", "in the immediate foreground"),
    ("close", "close", "near", "nearby", "close to the camera", "near the viewer", "in the foreground", "close by"),
    ("slightly close", "slightly close", "rather close", "fairly near", "a little close", "quite close", "not far"),
    ("neither close nor distant", "neither close nor distant", "not in distance", "at a medium distance", "in the middle distance",
        "midway", "neither near nor far"),
    ("slightly distant", "slightly distant", "a little remote", "a little far", "somewhat distant", "rather far", "some way off"),
    ("distant", "distant", "far", "far away", "remote", "in the background", "far off", "a long way away"),
    ("very distant", "very distant", "very distant", "very far away", "almost unseen in the distance", "extremely far", "very remote",
        "quite unseen so far away", "at the very back"),
)  # fmt: skip

BEFORE_NOUN = {
    *("very close", "extremely close", "close", "nearby", "slightly close", "rather close", "quite close", "slightly distant"),
    *("somewhat distant", "distant", "far away", "remote", "far off", "very distant", "very remote"),
}  # of these, the ones that can stand before a noun

SIZE_WORDS: tuple[tuple[str, ...], ...] = (
    ("very small", "very small", "tiny", "very little"),
    ("small", "little", "small"),
    ("slightly small", "smallish", "rather small"),
    ("neither small nor large", "medium sized"),
    ("slightly large", "rather big", "slightly large"),
    ("large", "big", "large"),
    ("very large", "very large", "giant", "giant", "huge", "enormous", "very big"),
)
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "bright red"), "green": ("green", "green", "bright green"), "blue": ("blue",), "yellow": ("yellow",),
    "orange": ("orange",), "purple": ("purple", "violet"), "pink": ("pink",), "brown": ("brown",), "white": ("white",),
    "grey": ("grey", "gray"), "black": ("black",), "beige": ("beige", "cream"), "turquoise": ("turquoise", "teal"),
    "light blue": ("light blue", "pale blue"), "dark green": ("dark green", "deep green"), "dark red": ("dark red", "deep red", "maroon"),
}  # fmt: skip
# how red or green a colour is, in the words of the human colour scale
REDNESS: dict[str, str] = {
    "red": "very red", "dark red": "red", "pink": "slightly red", "orange": "slightly red", "brown": "slightly red",
    "green": "very green", "dark green": "green", "turquoise": "slightly green",
    **dict.fromkeys(("white", "grey", "black", "blue", "light blue", "yellow", "purple", "beige"), "neither red nor green"),
}  # fmt: skip
MATERIAL_WORDS: dict[str, tuple[str, ...]] = {
    "wooden": ("wooden", "plank"), "striped": ("striped",), "checked": ("checked", "chequered"), "spotted": ("spotted", "speckled",
        "patterned"),
    "brick": ("brick",), "tiled": ("tiled",), "carpet": ("carpeted", "soft"), "plaster": ("plastered",), "wallpaper": ("papered",
        "faintly striped"),
}  # fmt: skip
NAMES: dict[str, tuple[str, ...]] = {
    "sofa": ("sofa", "couch"), "armchair": ("armchair", "easy chair"), "television": ("television", "tv"), "computer": ("computer",
        "monitor"),
    "picture": ("painting", "framed picture", "picture"), "rug": ("rug", "mat"), "cupboard": ("cupboard", "cabinet"), "bin": ("bin",
        "waste bin"),
    "wardrobe": ("wardrobe", "closet"), "fridge": ("fridge", "refrigerator"), "stove": ("stove", "cooker", "oven"), "plant": ("plant",
        "potted plant"),
    "bookshelf": ("bookshelf", "bookcase"), "person": ("person", "standing person"), "cushion": ("cushion", "pillow"),
        "column": ("column", "pillar"),
    "bathtub": ("bathtub", "bath"), "chest of drawers": ("chest of drawers", "dresser"), "car": ("car", "parked car", "vehicle"),
        "truck": ("truck", "lorry"),
    "motorcycle": ("motorcycle", "motorbike"), "house": ("house", "home"), "building": ("building", "block of flats"), "bush": ("bush",
        "shrub"),
    "rock": ("rock", "boulder", "stone"), "pole": ("pole", "post", "mast"), "street lamp": ("street lamp", "lamp post", "street light"),
    "fir tree": ("fir tree", "pine tree", "conifer"), "sign": ("sign", "road sign"), "shed": ("shed", "hut"), "post box": ("post box",
        "mail box"),
    "box": ("box", "cardboard box", "block"), "ball": ("ball", "sphere"), "crate": ("crate",),
}  # fmt: skip
PLURALS = {"box": "boxes", "bush": "bushes", "person": "people", "shelf": "shelves", "bookshelf": "bookshelves",
    "chest of drawers": "chests of drawers",
           "bus": "buses", "bench": "benches", "post box": "post boxes"}  # fmt: skip
PLACES: dict[str, tuple[str, ...]] = {
    "living room": ("living room", "lounge", "sitting room"), "corridor": ("corridor", "hallway", "passage"), "hall": ("hall",
        "large hall"),
    "bathroom": ("bathroom", "washroom"), "storeroom": ("storeroom", "storage room"), "playroom": ("playroom", "room with toys"),
    "office": ("office", "study"), "city street": ("city street", "street in a city", "town street"), "motorway": ("motorway", "highway"),
    "country road": ("country road", "rural road"), "forest road": ("forest road", "road through a forest", "road in the woods"),
    "building site": ("building site", "construction site"), "car park": ("car park", "parking lot"), "desert road": ("desert road",
        "road in a desert"),
    "suburban street": ("suburban street", "residential street"), "village road": ("village road", "road through a village"),
}  # fmt: skip
SKIES = {"clear sky": "under a clear blue sky", "sunny": "in the sun", "cloudy": "under a cloudy sky", "overcast": "under a grey sky",
    "foggy": "in fog", "sunset": "at sunset", "dusk": "at dusk"}  # fmt: skip
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TENS = {
    12: "twelve",
    15: "fifteen",
    20: "twenty",
    25: "twenty five",
    30: "thirty",
    40: "forty",
    50: "fifty",
    60: "sixty",
    70: "seventy",
    80: "eighty",
}


def distance_level(metres: float, domain: str) -> int:
    """0 (very close) .. 6 (very distant) in the eyes of someone in a room ("indoor") or on a road."""
    return int(np.searchsorted(DISTANCE_LIMITS[domain], metres))


def metres_in_words(metres: float, rng: np.random.Generator) -> str:
    """A rounded length, such as "two and a half metres" or "3 m"."""
    unit = ("metres", "metres", "meters", "m")[int(rng.integers(4))]
    if metres < 0.75:
        return "half a metre"
    if metres < 1.25:
        return "one metre" if rng.random() < 0.7 else "1 m"
    if metres < 3.25 and 0.25 <= metres % 1 < 0.75:
        return f"{NUMBERS[int(metres)]} and a half {unit if unit != 'm' else 'metres'}"
    whole = round(metres) if metres < 10.5 else min(_TENS, key=lambda n: abs(n - metres))
    word = NUMBERS[whole] if whole <= 10 else _TENS[whole]
    return f"{whole} {unit}" if rng.random() < 0.25 or unit == "m" else f"{word} {unit}"


def an(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """More than one of it."""
    return PLURALS.get(noun, noun + "s")
