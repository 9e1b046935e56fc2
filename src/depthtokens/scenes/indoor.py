"""Rooms of 0.5 to 10 metres: walls, furniture, and things lying about."""

from __future__ import annotations

from dataclasses import replace
from math import atan2, cos, hypot, pi, radians, sin

from .builder import Builder, Draw, paint_of, pick, shade_of
from .content import COLOURS, Content, Thing
from .furniture import FURNITURE
from .rooms import ROOMS, SMALL, TOPS, TOYS, Room
from .solids import BOX, PLANE, Paint, Solid, Vec
from .world import Camera, Light, World


class _Plan(Builder):
    """A room in the making; remembers which floor is taken. The room spans ±width/2 in x and 0 to length in z."""

    def __init__(self, rng: Draw, sides: Vec, camera: Camera) -> None:
        super().__init__(rng, FURNITURE)
        self.width, self.height, self.length = sides
        self.camera = camera
        self.taken: list[tuple[float, float, float, float]] = []  # x, z, half extents along x and z
        self.tops: list[tuple[Vec, Vec, float, str]] = []  # centre of a top, the size of what it belongs to, its yaw and kind

    def in_view(self, x: float, z: float) -> bool:
        """Whether the camera is turned to the point."""
        dx, dz = x - self.camera.position[0], z - self.camera.position[2]
        off = (atan2(dx, dz) - self.camera.yaw + pi) % (2 * pi) - pi
        return abs(off) < self.camera.view / 2

    def fits(self, x: float, z: float, hx: float, hz: float, flat: bool = False) -> bool:
        """Whether a footprint lies in the room, overlaps no other and leaves the camera half a metre.

        Args:
            x: of its centre, in metres.
            z: of its centre, in metres.
            hx: half its extent along x, in metres.
            hz: half its extent along z, in metres.
            flat: it may lie under other things and under the camera, as a rug does.
        """
        if abs(x) + hx > self.width / 2 or z - hz < 0 or z + hz > self.length:
            return False
        cx, _, cz = self.camera.position
        if hypot(max(0, abs(cx - x) - hx), max(0, abs(cz - z) - hz)) < 0.5 and not flat:
            return False
        return flat or all(abs(x - ox) > hx + ohx or abs(z - oz) > hz + ohz for ox, oz, ohx, ohz in self.taken)

    def stand(self, kind: str, x: float, z: float, yaw: float, size: Vec, level: int) -> bool:
        """Put a piece on the floor where it fits; things may be put on its top later, where it has one.

        Args:
            kind: a name in the catalogue.
            x: of its centre, in metres.
            z: of its centre, in metres.
            yaw: any angle, in radians.
            size: (width, height, depth) in metres.
            level: index into `SIZES`.

        Returns:
            Whether it fits.
        """
        w, h, d = size
        turn = abs((yaw + pi / 4) % pi - pi / 4) / (pi / 2)
        hx, hz = (w / 2, d / 2) if turn < 0.1 else (d / 2, w / 2) if turn > 0.9 else (hypot(w, d) / 2,) * 2
        if h > self.height - 0.02 or not self.fits(x, z, hx, hz, kind == "rug"):
            return False
        if kind == "column":
            size = (w, self.height, d)
        if kind != "rug":
            self.taken.append((x, z, hx, hz))
        self.add(kind, (x, 0.0, z), yaw, "floor", size, level)
        if kind in TOPS:
            self.tops.append(((x, h, z), size, yaw, kind))
        return True


def _free(x: float, z: float, yaw: float, width: float, length: float) -> float:
    """Metres from a place to the wall that it looks at."""
    dx, dz = sin(yaw), cos(yaw)
    return min((width / 2 - x * (1 if dx > 0 else -1)) / (abs(dx) + 1e-6), ((length - z) if dz > 0 else z) / (abs(dz) + 1e-6))


def _camera(rng: Draw, width: float, length: float, height: float) -> Camera:
    """Somewhere in the room, mostly looking along it, at a height between a child's and a ladder's."""
    style = rng.random()
    eye = float(min(rng.uniform(0.45, 2.1), height - 0.25))
    side = max(0.05, width / 2 - 0.35)
    x = float(rng.uniform(-side, side))
    if style < 0.58:  # along the room
        z, yaw = float(rng.uniform(0.15, 0.15 + 0.3 * length)), float(rng.normal(-0.5 * x / width, 0.3))
    elif style < 0.91:  # anywhere, any way, but a bare wall in front of the nose is rare
        z = float(rng.uniform(0.3, length - 0.3))
        ways = [(_free(x, z, angle, width, length), angle) for angle in map(float, rng.uniform(-pi, pi, 4))]
        yaw = next((angle for free, angle in ways if free > 1.3 * rng.random() + 0.7), max(ways)[1])
    else:  # up against the far wall
        ahead = float(rng.uniform(0.9, 2.4))
        z, yaw = max(0.2, length - ahead), float(rng.normal(0, 0.35))
    pitch = radians(float(rng.normal(-5 - 9 * (eye - 1.0), 9)))
    return Camera((x, eye, z), yaw, max(-0.9, min(0.4, pitch)), radians(float(rng.normal(0, 1.2))), radians(float(rng.uniform(56, 74))))


def _shell(rng: Draw, room: Room, sides: Vec, surfaces: dict[str, str]) -> list[Solid]:
    """Floor, ceiling and four walls; their description goes into `surfaces`."""
    width, height, length = sides
    paints: dict[str, Paint] = {}
    walls = (*(c for c in COLOURS if c not in ("black", "dark red", "dark green")), "white", "beige", "grey", "white", "beige")
    for surface, materials, colours in (
        ("floor", room.floors, ("brown", "beige", "grey", "brown", "white", "dark red", "blue", "green", "black", "red")),
        ("wall", room.walls, walls),
        ("ceiling", ("plain", "plain", "plaster", "wooden"), ("white", "white", "white", "beige", "grey", "light blue", "brown")),
    ):
        colour, material = pick(rng, colours), pick(rng, materials)
        paints[surface] = paint_of(rng, shade_of(rng, colour), material, 1.7 if material in ("checked", "spotted") else 1.0)
        surfaces[surface] = f"{colour} {material}"
    ways: list[tuple[str, Vec, Vec]] = [
        ("floor", (0, 0, 0), (0, 1, 0)),
        ("ceiling", (0, height, 0), (0, -1, 0)),
        ("wall", (-width / 2, 0, 0), (1, 0, 0)),  # the walls come last
        ("wall", (width / 2, 0, 0), (-1, 0, 0)),
        ("wall", (0, 0, 0), (0, 0, 1)),
        ("wall", (0, 0, length), (0, 0, -1)),
    ]
    return [Solid(PLANE, centre, normal, paints[surface]) for surface, centre, normal in ways]


def _against_wall(plan: _Plan, wall: int, depth: float, away: float = 0.0) -> tuple[float, float, float]:
    """x, z and yaw of a piece of that depth with its back at wall 0..3 (far, left, right, near), at a random place along it."""
    rng, reach = plan.rng, depth / 2 + away + 0.01
    if wall in (0, 3):
        x = float(rng.uniform(-plan.width / 2, plan.width / 2))
        return (x, plan.length - reach, pi) if wall == 0 else (x, reach, 0.0)
    z = float(rng.uniform(0, plan.length))
    return (-plan.width / 2 + reach, z, pi / 2) if wall == 1 else (plan.width / 2 - reach, z, -pi / 2)


def _furnish(plan: _Plan, room: Room) -> None:
    """Hang, stand and lay things into a room."""
    rng = plan.rng
    if rng.random() < 0.4:  # something close ahead of the camera
        _scatter(plan, (*room.free, *SMALL[:4]), 1, (0.75, 1.7))
    ahead, aside = cos(plan.camera.yaw), sin(plan.camera.yaw)
    facing = 0 if ahead > 0.7 else 3 if ahead < -0.7 else 2 if aside > 0 else 1
    hung: list[tuple[int, float, float, float, float]] = []  # wall, middle along it, half width, bottom and top
    for _ in range(int(rng.integers(8, 22))):
        kind, wall = pick(rng, room.hanging), facing if rng.random() < 0.5 else int(rng.integers(4))
        (w, h, d), level = plan.measure(kind)
        x, z, yaw = _against_wall(plan, wall, d)
        along, limit = (x, plan.width / 2) if wall in (0, 3) else (z - plan.length / 2, plan.length / 2)
        base = 0.0 if kind == "door" else 0.15 if kind == "radiator" else 0.1 if kind == "curtain" else float(rng.uniform(0.9, 1.6))
        base = min(base, plan.height - h - 0.08)
        clear = all(wall != o or abs(along - a) > w / 2 + half + 0.1 or base > top or base + h < low for o, a, half, low, top in hung)
        if clear and base >= 0 and abs(along) + w / 2 + 0.1 < limit and plan.in_view(x, z):
            hung.append((wall, along, w / 2, base, base + h))
            plan.add(kind, (x, base, z), yaw, "wall", (w, h, d), level)
    wanted = int(rng.integers(2, 10))
    for _ in range(9 * wanted):
        kind, wall = pick(rng, room.along), int(rng.integers(4))
        size, level = plan.measure(kind)
        x, z, yaw = _against_wall(plan, wall, size[2], 0.04)
        behind_door = any(
            o == wall and low == 0 and abs((x if wall in (0, 3) else z - plan.length / 2) - a) < half + size[0] / 2
            for o, a, half, low, _ in hung
        )
        if wanted and not behind_door and plan.in_view(x, z) and plan.stand(kind, x, z, yaw, size, level):
            wanted -= 1
    _scatter(plan, room.free, int(rng.integers(1, 7)), (0.9, 8.0))
    _scatter(plan, TOYS, int(rng.integers(0, 5)), (0.8, 7.0))
    for (x, y, z), (w, _, d), _, kind in plan.tops:
        for _ in range(int(rng.integers(0, 4))):
            small = pick(rng, (*SMALL, "television", "computer") if kind in ("desk", "cupboard", "chest of drawers") else SMALL)
            (sw, sh, sd), level = plan.measure(small)
            shrink = min(1.0, 0.3 / max(sw, sd)) if small in ("box", "ball", "plant", "cylinder", "cone", "basket") else 1.0
            level = level if shrink > 0.8 else max(0, level - 2)
            radius = (min(w, d) - max(sw, sd) * shrink) / 2
            if radius > 0 and y + sh * shrink < plan.height - 0.1:
                place = (x + float(rng.uniform(-radius, radius)), y, z + float(rng.uniform(-radius, radius)))
                toward = atan2(plan.camera.position[0] - x, plan.camera.position[2] - z)
                plan.add(small, place, toward + float(rng.normal(0, 0.4)), kind, (sw * shrink, sh * shrink, sd * shrink), level)


def _scatter(plan: _Plan, kinds: tuple[str, ...], count: int, reach: tuple[float, float]) -> None:
    """Up to `count` things on the floor, ahead of the camera at log-uniform distances in metres."""
    rng, (cx, _, cz) = plan.rng, plan.camera.position
    for _ in range(5 * count):
        kind = pick(rng, kinds)
        size, level = plan.measure(kind)
        angle = plan.camera.yaw + float(rng.uniform(-0.5, 0.5)) * plan.camera.view
        away = reach[0] * (reach[1] / reach[0]) ** float(rng.random()) + size[2] / 2
        x, z = cx + away * sin(angle), cz + away * cos(angle)
        yaw = pick(rng, (0.0, pi / 2, pi, -pi / 2)) if rng.random() < 0.5 else float(rng.uniform(-pi, pi))
        if count and plan.stand(kind, x, z, yaw, size, level):
            count -= 1


def _light(rng: Draw, plan: _Plan) -> tuple[list[Light], Vec, str]:
    """Lamps or a window's daylight, the light from everywhere, and a phrase for them."""
    mood = pick(rng, ("bright", "bright", "dim", "warm", "cool", "daylight", "daylight", "evening"))
    tint = {"warm": (1.0, 0.82, 0.6), "evening": (1.0, 0.72, 0.48), "cool": (0.82, 0.93, 1.0), "daylight": (0.95, 0.98, 1.0)}.get(
        mood, (1.0, 0.97, 0.92)
    )
    power = {"dim": 0.6, "evening": 0.75, "bright": 1.35}.get(mood, 1.05) * float(rng.uniform(0.85, 1.2))
    x, z = float(rng.uniform(-0.3, 0.3)) * plan.width, float(rng.uniform(0.2, 0.8)) * plan.length
    reach = 0.45 * (plan.width + plan.length) * float(rng.uniform(0.6, 1.1))
    if mood == "daylight":  # from one side, as through a window
        place = (pick(rng, (-0.36, 0.36)) * plan.width, 0.75 * plan.height, z)
    else:
        place = (x, plan.height - 0.12, z)
        lamp = Paint(colour=(1.0, 0.97, 0.86), emit=0.95)
        plan.solids.append(Solid(BOX, (x, plan.height - 0.04, z), (0.22, 0.04, 0.22), lamp))
    r, g, b = tint
    # a weak light beside the camera: what is near is a little brighter, as with a flash
    flash = Light(plan.camera.position, (0.22, 0.22, 0.22), 2.5)
    lights = [Light(place, (r * power, g * power, b * power), reach), flash]
    base = 0.42 * power * float(rng.uniform(0.8, 1.2))
    return lights, (r * base, g * base, b * base), {"daylight": "daylight", "evening": "evening light"}.get(mood, f"{mood} light")


def build(rng: Draw) -> World:
    """A random room."""
    name = pick(rng, tuple(ROOMS))
    room = ROOMS[name]
    width, length, height = (float(rng.uniform(*span)) for span in (room.width, room.length, room.height))
    plan = _Plan(rng, (width, height, length), _camera(rng, width, length, height))
    surfaces: dict[str, str] = {}
    for solid in _shell(rng, room, (width, height, length), surfaces):
        wall = len(plan.solids) >= 2
        plan.solids.append(replace(solid, thing=len(plan.things) if wall else -1))
        if wall:
            colour, _, material = surfaces["wall"].rpartition(" ")
            plan.things.append(Thing("wall", colour, 3, material, "room"))
    _furnish(plan, room)
    lights, ambient, mood = _light(rng, plan)
    dimensions = {"width": round(width, 2), "length": round(length, 2), "height": round(height, 2)}
    content = Content("indoor", name, mood, surfaces, dimensions, round(plan.camera.position[1], 2), plan.things)
    corners = (-width / 2, width / 2, 0.0, height, 0.0, length)
    return World(plan.camera, content, plan.solids, lights, ambient, corners=corners)
