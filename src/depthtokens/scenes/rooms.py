"""Kinds of rooms, as data."""

from __future__ import annotations

from dataclasses import dataclass

SMALL = ("box", "ball", "vase", "cup", "bottle", "bowl", "book", "lamp", "plant", "cylinder", "cone", "basket")
TOYS = ("ball", "box", "cylinder", "cone", "suitcase", "basket", "bin", "plant", "cushion")
TOPS = ("table", "round table", "desk", "chest of drawers", "counter", "cupboard", "stool", "bench")  # small things stand on these


@dataclass(frozen=True)
class Room:
    """A kind of room.

    Attributes:
        width: from how many to how many metres.
        length: the same.
        height: the same.
        along: kinds of things that stand along its walls.
        free: kinds of things that stand free in it.
        hanging: kinds of things that hang on its walls.
        floors: materials of its floor.
        walls: materials of its walls.
    """

    width: tuple[float, float]
    length: tuple[float, float]
    height: tuple[float, float]
    along: tuple[str, ...]
    free: tuple[str, ...]
    hanging: tuple[str, ...] = ("door", "window", "picture", "picture", "clock", "radiator", "mirror", "curtain")
    floors: tuple[str, ...] = ("wooden", "tiled", "carpet", "plain", "checked")
    walls: tuple[str, ...] = ("plain", "plaster", "plain", "wallpaper", "brick")


ROOMS: dict[str, Room] = {
    "bedroom": Room((2.6, 4.6), (2.8, 5.5), (2.3, 2.8), ("bed", "wardrobe", "chest of drawers", "desk", "bookshelf", "armchair"), ("rug",
        "chair", "stool", *TOYS)),
    "kitchen": Room((2.2, 4.5), (2.5, 5.5), (2.3, 2.9), ("counter", "fridge", "stove", "sink", "cupboard", "counter", "shelf"), ("table",
        "chair", "chair", "stool", "round table", "bin"), floors=("tiled", "checked", "wooden"), walls=("tiled", "plain", "plain",
        "plaster")),
    "living room": Room((3.2, 6.0), (3.5, 7.5), (2.4, 3.1), ("sofa", "armchair", "bookshelf", "cupboard", "piano", "floor lamp", "plant"),
        ("table", "rug", "armchair", "round table", *TOYS)),
    "dining room": Room((3.0, 5.5), (3.2, 6.5), (2.4, 3.0), ("cupboard", "bench", "chest of drawers", "plant", "piano"), ("table",
        "chair", "chair", "chair", "round table", "rug")),
    "office": Room((2.6, 6.0), (3.0, 8.0), (2.4, 3.0), ("desk", "bookshelf", "cupboard", "shelf", "desk", "plant"), ("desk", "chair",
        "chair", "bin", "table", "box"), floors=("carpet", "plain", "wooden"), walls=("plain", "plaster", "plain")),
    "corridor": Room((1.3, 2.3), (5.5, 11.5), (2.2, 3.0), ("bench", "plant", "cupboard", "chair", "box", "suitcase"), ("box", "ball",
        "person", "bin", "suitcase"), hanging=("door", "door", "door", "picture", "window", "radiator", "clock")),
    "hall": Room((5.0, 9.5), (7.0, 12.0), (3.2, 5.5), ("bench", "column", "piano", "plant", "sofa", "cupboard"), ("column", "column",
        "person", "chair", "table", "plant", "rug", *TOYS), floors=("checked", "tiled", "wooden", "plain"), walls=("plain", "brick",
        "plaster", "spotted")),
    "bathroom": Room((1.7, 3.0), (1.9, 3.8), (2.2, 2.7), ("bathtub", "toilet", "sink", "cupboard", "basket"), ("stool", "basket", "rug",
        "bin", "plant"), hanging=("door", "window", "mirror", "mirror", "radiator"), floors=("tiled", "checked"), walls=("tiled", "tiled",
        "plain")),
    "library": Room((3.0, 7.0), (3.5, 9.0), (2.5, 3.8), ("bookshelf", "bookshelf", "bookshelf", "desk", "armchair"), ("table", "chair",
        "armchair", "floor lamp", "book", "bookshelf", "person"), floors=("wooden", "carpet")),
    "classroom": Room((4.5, 7.5), (5.5, 9.5), (2.7, 3.4), ("cupboard", "bookshelf", "shelf", "desk"), ("desk", "chair", "desk", "chair",
        "chair", "table", "person"), hanging=("blackboard", "blackboard", "door", "window", "clock", "picture")),
    "storeroom": Room((1.8, 4.0), (2.2, 6.0), (2.2, 3.0), ("shelf", "shelf", "box", "cupboard", "box", "bin"), ("box", "box", "box",
        "suitcase", "basket", "cylinder", "bin", "ball"), hanging=("door", "door", "window"), floors=("plain", "wooden", "tiled"),
        walls=("brick", "plain", "spotted", "wooden")),
    "playroom": Room((2.8, 5.5), (3.0, 6.0), (2.3, 2.9), ("shelf", "bookshelf", "bed", "chest of drawers"), ("ball", "ball", "box",
        "cone", "cylinder", "cushion", "stool", "rug"), floors=("carpet", "wooden", "checked", "plain")),
    "attic": Room((2.5, 5.0), (3.5, 7.5), (1.9, 2.4), ("suitcase", "box", "shelf", "bed", "chest of drawers"), ("box", "chair",
        "suitcase", "lamp", "rug", "box", "ball"), hanging=("window", "picture"), floors=("wooden",), walls=("wooden", "brick",
        "plaster")),
}  # fmt: skip
