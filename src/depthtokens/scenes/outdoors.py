"""The catalogue of things on and beside roads."""

from __future__ import annotations

from .pieces import BARK, DARK, LAMP, LEAVES, METAL, SECOND, SKIN, WALL, WHITE, Piece, ball, box, cone, roof, wheels

CLOTH = ("plain", "striped", "checked", "plain")
BODY = ("white", "black", "grey", "red", "blue", "green", "yellow", "orange", "dark green", "light blue", "dark red", "beige", "brown")
STONE = ("white", "beige", "red", "grey", "brown", "yellow", "light blue", "pink", "orange", "green")
GREEN = ("green", "dark green")

OUTDOORS: dict[str, Piece] = {
    "car": Piece((1.8, 1.5, 4.2), 1.15, (box(0, 0.38, 0, 1, 0.23, 1), box(0, 0.78, -0.1, 0.84, 0.2, 0.52, DARK), box(0, 0.97, -0.12, 0.8,
        0.03, 0.45), box(0, 0.45, 1, 0.85, 0.05, 0.01, LAMP), box(0, 0.45, -1, 0.85, 0.05, 0.01, WHITE), *wheels(-0.62, 0.62)),
        ("plain",), BODY),
    "van": Piece((1.95, 2.2, 4.9), 1.12, (box(0, 0.55, -0.12, 1, 0.43, 0.88), box(0, 0.38, 0.85, 0.97, 0.24, 0.15), box(0, 0.78, 0.62,
        0.9, 0.14, 0.16, DARK), box(0, 0.75, -1, 0.7, 0.13, 0.01, DARK), *wheels(-0.65, 0.65)), ("plain", "striped"), BODY),
    "truck": Piece((2.5, 3.4, 8.0), 1.2, (box(0, 0.58, -0.25, 1, 0.4, 0.74), box(0, 0.42, 0.78, 0.95, 0.32, 0.2, SECOND), box(0, 0.58,
        0.97, 0.85, 0.12, 0.02, DARK), box(0, 0.16, 0, 0.8, 0.05, 0.95, DARK), *wheels(-0.75, -0.5, 0.75)), ("plain", "striped"), BODY),
    "bus": Piece((2.5, 3.1, 10.5), 1.12, (box(0, 0.55, 0, 1, 0.44, 1), box(0, 0.68, 0, 1.01, 0.14, 0.94, DARK), box(0, 0.65, 0, 0.9, 0.2,
        1.005, DARK), *wheels(-0.65, 0.65)), ("plain",), BODY),
    "motorcycle": Piece((0.7, 1.3, 2.0), 1.1, (ball(0, 0.25, 0.7, 0.15, 0.25, 0.32, DARK), ball(0, 0.25, -0.7, 0.15, 0.25, 0.32, DARK),
        box(0, 0.45, 0, 0.3, 0.12, 0.6), cone(0.85, 0.5, 0.22, 0.55, SECOND, 0, -0.2), ball(0, 1.12, -0.2, 0.42, 0.12, 0.15, DARK)),
        ("plain",), BODY),
    "person": Piece((0.5, 1.72, 0.34), 1.15, (cone(0.24, 0.5, 0.24, 0.62, SECOND), cone(0.64, 0.65, 0.18, 0.9), ball(0, 0.92, 0, 0.42,
        0.08, 0.6, SKIN), ball(0, 0.95, -0.1, 0.44, 0.06, 0.6, BARK)), CLOTH),
    "house": Piece((9.0, 7.0, 8.0), 1.4, (box(0, 0.34, 0, 0.95, 0.34, 0.93, WALL), roof(0, 0.84, 0, 1.02, 0.16, 1.04), box(0.6, 0.9, 0.2,
        0.08, 0.12, 0.08, DARK), box(0.1, 0.16, 0.94, 0.12, 0.16, 0.02, DARK)), ("windowed",), STONE),
    "building": Piece((14.0, 14.0, 11.0), 1.6, (box(0, 0.49, 0, 1, 0.49, 1, WALL), box(0, 0.985, 0, 1.03, 0.015, 1.03, SECOND)),
        ("windowed",), STONE),
    "barn": Piece((9.0, 6.5, 13.0), 1.3, (box(0, 0.32, 0, 0.95, 0.32, 0.98), roof(0, 0.82, 0, 1.02, 0.18, 1.02), box(0, 0.22, 0.99, 0.3,
        0.22, 0.01, DARK)), ("wooden",), ("red", "brown", "dark red", "grey")),
    "shed": Piece((3.2, 2.8, 3.0), 1.3, (box(0, 0.4, 0, 0.93, 0.4, 0.93), roof(0, 0.9, 0, 1.05, 0.1, 1.05), box(0, 0.3, 0.94, 0.25, 0.3,
        0.02, DARK)), ("wooden",), ("brown", "green", "red", "grey", "light blue")),
    "tree": Piece((4.6, 7.0, 4.6), 1.6, (cone(0.22, 0.09, 0.22, 0.06, BARK), ball(0, 0.66, 0, 0.95, 0.3, 0.95, LEAVES), ball(0.4, 0.55,
        0.35, 0.6, 0.2, 0.6, LEAVES), ball(-0.45, 0.6, -0.3, 0.6, 0.22, 0.6, LEAVES)), ("plain",), ("green", "dark green", "orange",
        "yellow", "green", "dark green")),
    "fir tree": Piece((3.6, 8.5, 3.6), 1.6, (cone(0.08, 0.07, 0.08, 0.06, BARK), cone(0.37, 1, 0.22, 0.25, LEAVES), cone(0.68, 0.72, 0.32,
        0.02, LEAVES)), ("plain",), GREEN),
    "bush": Piece((1.7, 1.2, 1.7), 1.7, (ball(0, 0.42, 0, 1, 0.55, 1, LEAVES), ball(0.5, 0.36, 0.3, 0.6, 0.4, 0.6, LEAVES)), ("plain",),
        GREEN),
    "rock": Piece((1.4, 0.9, 1.2), 2.0, (ball(0, 0.35, 0, 1, 0.62, 1), ball(0.5, 0.2, 0.3, 0.6, 0.4, 0.6)), ("spotted",), ("grey",
        "brown", "beige")),
    "pole": Piece((0.24, 6.5, 0.24), 1.3, (cone(0.5, 1, 0.5, 0.8),), ("plain", "wooden"), ("grey", "brown", "white", "black")),
    "street lamp": Piece((0.3, 6.0, 2.2), 1.3, (cone(0.48, 0.7, 0.48, 0.4), box(0, 0.965, 0.4, 0.3, 0.008, 0.45), box(0, 0.955, 0.85, 0.8,
        0.014, 0.2, LAMP)), ("plain",), ("grey", "black", "dark green")),
    "traffic light": Piece((0.4, 3.6, 0.35), 1.15, (cone(0.4, 0.35, 0.4, 0.35, DARK), box(0, 0.86, 0, 0.8, 0.14, 0.7, DARK), ball(0, 0.93,
        0.7, 0.5, 0.04, 0.3), ball(0, 0.8, 0.7, 0.5, 0.04, 0.3, METAL)), ("plain",), ("red", "green")),
    "sign": Piece((0.8, 2.7, 0.12), 1.3, (cone(0.5, 0.08, 0.5, 0.08, METAL), box(0, 0.86, 0.5, 1, 0.14, 0.3, WHITE), box(0, 0.86, 0.6,
        0.85, 0.12, 0.4)), ("plain", "striped"), ("red", "blue", "green", "yellow", "white")),
    "traffic cone": Piece((0.45, 0.75, 0.45), 1.3, (cone(0.52, 0.75, 0.48, 0.1), box(0, 0.03, 0, 1, 0.03, 1), cone(0.6, 0.56, 0.1, 0.43,
        WHITE)), ("plain",), ("orange", "red", "yellow", "green")),
    "bin": Piece((0.6, 1.05, 0.6), 1.3, (box(0, 0.46, 0, 0.9, 0.46, 0.9), box(0, 0.95, 0, 1, 0.05, 1, DARK))),
    "bench": Piece((1.7, 0.85, 0.6), 1.2, (box(0, 0.52, 0.1, 1, 0.04, 0.8), box(0, 0.83, -0.8, 1, 0.17, 0.08), box(-0.8, 0.25, 0.1, 0.05,
        0.25, 0.7, DARK), box(0.8, 0.25, 0.1, 0.05, 0.25, 0.7, DARK)), ("wooden",), ("brown", "green", "red", "beige")),
    "post box": Piece((0.5, 1.35, 0.5), 1.2, (cone(0.47, 0.85, 0.47, 0.85), ball(0, 0.95, 0, 0.9, 0.07, 0.9), box(0, 0.75, 0.86, 0.5,
        0.02, 0.05, DARK)), ("plain",), ("red", "yellow", "blue", "green")),
    "barrel": Piece((0.6, 0.9, 0.6), 1.4, (cone(0.25, 0.85, 0.25, 1), cone(0.75, 1, 0.25, 0.85)), ("striped", "plain", "wooden")),
    "crate": Piece((1.0, 0.9, 1.0), 1.8, (box(0, 0.5, 0, 1, 0.5, 1),), ("wooden", "plain", "checked")),
    "wall": Piece((7.0, 1.8, 0.35), 1.3, (box(0, 0.5, 0, 1, 0.5, 1),), ("brick", "spotted"), ("red", "white", "grey", "beige", "brown")),
    "fence": Piece((6.0, 1.1, 0.1), 1.3, (*(box(-0.9 + 0.36 * i, 0.5, 0, 0.1, 0.5, 0.5) for i in range(6)), box(0, 0.72, -0.6, 1, 0.05,
        0.5), box(0, 0.3, -0.6, 1, 0.05, 0.5)), ("plain", "wooden"), ("white", "brown", "green", "grey", "red")),
    "hedge": Piece((6.0, 1.5, 1.0), 1.4, (box(0, 0.5, 0, 1, 0.5, 1, LEAVES),), ("plain",), GREEN),
    "hill": Piece((90.0, 16.0, 60.0), 1.6, (ball(0, -0.2, 0, 1, 1, 1, LEAVES),), ("plain",), ("green", "dark green", "brown")),
    "tower": Piece((5.0, 22.0, 5.0), 1.3, (cone(0.4, 1, 0.4, 0.8, WALL), cone(0.9, 1.1, 0.1, 0.05, SECOND)), ("windowed",), STONE),
}  # fmt: skip
