"""Varied English about a scene, true to what can be seen in it, and often about how far away things are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from . import words
from .content import DEPTH_RANGE, Content, Thing
from .words import an, distance_level, metres_in_words

ABOUT_DISTANCE = 0.66  # share of captions that are meant to say something about distance
MOST_WORDS = 34  # with CLIP's tokenizer about 45 tokens
POSITIONS = {
    "left": ("on the left", "at the left", "to the left", "on the left side"),
    "middle": ("in the middle", "in the centre", "ahead", "straight ahead"),
    "right": ("on the right", "at the right", "to the right", "on the right side"),
}


def caption(content: Content, rng: np.random.Generator) -> str:
    """One sentence or two on a scene: 3 to 6 facts, lower case, about 45 CLIP tokens at most.

    Args:
        content: what the scene shows.
        rng: what the caption is drawn from; another draw says other things.
    """
    return _Writer(content, rng).write()


class _Writer:
    """Draws facts about one scene and keeps track of which things were already named."""

    def __init__(self, content: Content, rng: np.random.Generator) -> None:
        self.content, self.rng = content, rng
        low, high = DEPTH_RANGE[content.domain]
        things = [t for t in content.things if low * 0.7 < t.mean < high * 1.2]
        # the larger a thing is in the image the likelier it is named, but walls fill images without being worth more words
        weight = np.array([t.pixels**0.5 * (0.25 if t.kind in ("wall", "hill") else 1) for t in things])
        order = rng.choice(len(things), len(things), replace=False, p=weight / weight.sum()).tolist() if things else []
        self.queue = [things[i] for i in order]
        self.things = things
        self.sides = rng.permutation(["left", "middle", "right"]).tolist()  # not yet spoken of
        self.spatial = bool(rng.random() < ABOUT_DISTANCE)

    def one(self, options: Sequence[str]) -> str:
        """One of the phrases, each as likely as the next."""
        return options[int(self.rng.integers(len(options)))]

    def write(self) -> str:
        """The caption."""
        rng, facts = self.rng, [self.opening()]
        for _ in range(int(rng.integers(3, 6))):
            fact = self.fact()
            if fact and fact not in facts:
                facts.append(fact)
        if rng.random() < 0.12:  # the place need not be named, nor come first
            facts = facts[1:] + facts[:1] if len(facts) > 1 and rng.random() < 0.5 else facts[1:] or facts
        text = facts[0]
        for fact in facts[1:]:
            longer = text + self.one((", ", ", ", ". ", " and ", "; ")) + fact
            if len(longer.split()) > MOST_WORDS:
                break
            text = longer
        return text

    def opening(self) -> str:
        """What kind of place it is, or the largest fact right away."""
        rng, content = self.rng, self.content
        kind = rng.random()
        if kind < 0.12 and self.spatial:
            return self.overall()
        if kind < 0.42 and self.queue:
            return self.thing()
        place = self.place()
        start = self.one(("", "", "a photo of ", "a view of ", "an image of ", "inside " if content.domain == "indoor" else "along "))
        extra = rng.random()
        more = f" {self.light()}" if extra < 0.22 else f" {self.surface()}" if extra < 0.45 else self.camera() if extra < 0.52 else ""
        return start + an(place) + more

    def fact(self) -> str:
        """Anything about the scene."""
        if self.spatial:
            return self.draw(
                ((self.thing, 5), (self.region, 1.6), (self.overall, 1), (self.order, 1.6), (self.appears, 1), (self.count, 0.5))
            )
        return self.draw(((self.thing, 5), (self.beside, 1), (self.count, 1.2), (self.tint, 0.6)))

    def draw(self, options: Sequence[tuple[Callable[[], str], float]]) -> str:
        """One of the kinds of fact, by their weights."""
        weights = np.array([w for _, w in options])
        return options[int(self.rng.choice(len(options), p=weights / weights.sum()))][0]()

    # --- noun phrases
    def name(self, thing: Thing, detail: float = 1.0) -> str:
        """A noun with some of size, colour and material in front, without article."""
        rng, parts = self.rng, []
        if (thing.size != 3 and rng.random() < 0.62 * detail) or rng.random() < 0.03:
            parts.append(self.one(words.SIZE_WORDS[thing.size]))
        if rng.random() < 0.92 * detail:
            parts.append(self.one(words.COLOUR_WORDS[thing.colour]))
        if thing.material in words.MATERIAL_WORDS and rng.random() < 0.45 * detail:
            parts.append(self.one(words.MATERIAL_WORDS[thing.material]))
        return " ".join([*parts, self.one(words.NAMES.get(thing.kind) or (thing.kind,))])

    def distance(self, metres: float) -> str:
        """Words for a distance, with the fuzziness of a guess."""
        guess = metres * float(np.exp(self.rng.normal(0, 0.06)))
        if self.rng.random() < 0.22:
            return self.one(("about ", "", "roughly ")) + metres_in_words(guess, self.rng) + " away"
        return self.one(words.DISTANCES[distance_level(guess, self.content.domain)])

    def next(self) -> Thing | None:
        """A thing that was not yet named."""
        return self.queue.pop(0) if self.queue else None

    # --- facts
    def thing(self) -> str:
        """A thing with where it is: "a small red ball close to the camera on the left"."""
        thing = self.next()
        if thing is None:
            return self.region() if self.spatial else self.surface()
        rng, text = self.rng, an(self.name(thing))
        where = self.one(POSITIONS[thing.position])
        if any(t.kind == thing.support for t in self.things) and thing.support != "wall":
            if rng.random() < 0.45:
                text += f" on {an(self.one(words.NAMES.get(thing.support) or (thing.support,)))}"
        elif thing.support == "wall" and rng.random() < 0.2:
            text += " on the wall" if thing.kind not in ("door", "window") else " in the wall"
        if not self.spatial:
            return f"{text} {where}" if rng.random() < 0.7 else text
        if rng.random() < 0.88:
            far = self.distance(thing.mean)
            if far in words.BEFORE_NOUN and rng.random() < 0.4 and " on " not in text:
                text = an(f"{far} {self.name(thing)}")
            else:
                text += f" {far}"
        return f"{text} {where}" if rng.random() < 0.6 else text

    def appears(self) -> str:
        """The plain sentences that prompts are made of."""
        thing = self.next() if self.rng.random() < 0.5 else None
        if thing is not None:
            subject = self.one((f"the {self.name(thing, 0.6)}", f"this {self.name(thing, 0.3)}"))
        elif self.things:  # "this object" is the one that is seen most of
            thing, subject = max(self.things, key=lambda t: t.pixels * (t.kind != "wall")), "this object"
        else:
            return self.overall()
        verb = self.one(("appears to be", "appears to be", "is", "seems", "looks"))
        far, size, tint = self.distance(thing.mean), self.one(words.SIZE_WORDS[thing.size]), words.REDNESS[thing.colour]
        predicate = self.one((far, far, far, size, tint))
        return f"{subject} {verb} {predicate}"

    def tint(self) -> str:
        """How red or green a thing is."""
        thing = self.next()
        return f"the {self.name(thing, 0.0)} is {words.REDNESS[thing.colour]}" if thing else self.light()

    def order(self) -> str:
        """Which of two things is nearer."""
        a, b = self.next(), self.next()
        if a is None or b is None or max(a.mean, b.mean) < 1.15 * min(a.mean, b.mean):
            return self.region()
        near, far = (a, b) if a.mean < b.mean else (b, a)
        first, second = self.name(near, 0.7), self.name(far, 0.7)
        gap = "far behind" if far.mean > 2 * near.mean else "behind"
        patterns = (
            *("the {0} is closer than the {1}", "the {0} is nearer to the camera than the {1}", "{0} in front, {1} further back"),
            *("the {1} is further away than the {0}", "the {1} is more distant than the {0}", "the {1} is behind the {0}"),
            *("{2} in front of {3}", f"{{3}} {gap} {{2}}"),
        )
        return self.one(patterns).format(first, second, an(first), an(second))

    def beside(self) -> str:
        """Which of two things is further left."""
        a, b = self.next(), self.next()
        rank = ("left", "middle", "right")
        if a is None or b is None or a.position == b.position:
            return self.surface()
        left, right = (a, b) if rank.index(a.position) < rank.index(b.position) else (b, a)
        first, second = an(self.name(left, 0.8)), an(self.name(right, 0.8))
        split = f"{first} on the left and {second} further right"
        return self.one((f"{first} to the left of {second}", f"{second} to the right of {first}", split))

    def count(self) -> str:
        """How many of a kind there are."""
        counts = Counter(t.kind for t in self.things if t.kind not in ("wall", "hill"))
        several = [kind for kind, n in counts.items() if n > 1]
        if not several:
            return self.thing()
        kind = self.one(several)
        n = counts[kind]
        return f"{words.NUMBERS[n] if n <= 6 else 'many'} {words.plural(kind)}"

    def region(self) -> str:
        """How far a side of the image is: "on the left everything is close"."""
        layout, rng = self.content.layout, self.rng
        side = self.sides.pop() if self.sides else "none"
        if layout.get(side, 0) <= 0:
            return self.surface()
        far = self.distance(layout[side])
        other = "right" if side == "left" else "left"
        ratio = layout[side] / max(layout.get(other, 0), 0.01)
        if side != "middle" and rng.random() < 0.4 and (ratio > 1.3 or ratio < 0.77):
            near, open_ = (side, other) if ratio < 1 else (other, side)
            pair = f"close on the {near}, open and distant on the {open_}", f"the {near} side is closer than the {open_} side"
            return self.one((*pair, f"the {open_} is further away than the {near}"))
        place = {"middle": "the middle of the view"}.get(side, f"the {side} side")
        return self.one((f"{place} is {far}", f"{self.one(POSITIONS[side])} everything is {far}", f"{place} appears to be {far}"))

    def overall(self) -> str:
        """How deep the whole scene is."""
        layout, domain = self.content.layout, self.content.domain
        if layout.get("all", 0) <= 0:
            return self.light()
        middle, near, far = (self.distance(layout[k]) for k in ("all", "near", "far"))
        deep = "deep" if layout["far"] > 2.6 * layout["near"] else "shallow"
        end = metres_in_words(layout["far"] if domain == "indoor" else min(80.0, layout["far"]), self.rng)
        what = "room" if domain == "indoor" else "road"
        general = (f"most of this {what} is {middle}", f"everything here is {middle}", f"this scene appears to be {middle}")
        ends = (f"the nearest part is {near}", f"the far end of the {what} is {end} away", f"the farthest part is {far}")
        return self.one((*general, *ends, f"a {deep} scene", f"a view {end} deep", f"most things are {middle}"))

    def place(self) -> str:
        """The kind of place, with its shape."""
        content, rng = self.content, self.rng
        name, size = self.one(words.PLACES.get(content.place) or (content.place,)), content.dimensions
        if content.domain == "indoor" and rng.random() < 0.45:
            area, ratio = size["width"] * size["length"], size["length"] / size["width"]
            shape = ["small", "tiny", "cramped"] if area < 9 else ["large", "spacious", "wide"] if area > 30 else []
            shape = ["long narrow", "narrow", "long"] if ratio > 2.2 else shape
            shape += ["high", "tall"] if size["height"] > 3.3 else ["low"] if size["height"] < 2.3 else []
            name = f"{self.one(shape)} {name}" if shape and not name.startswith("large") else name
        elif content.domain == "road" and rng.random() < 0.4:
            shape = ["wide", "broad"] if size["lanes"] > 2 else ["narrow"] if size["lanes"] < 2 else []
            shape += ["bending"] if abs(size["bend"]) > 0.0028 else ["straight"] if abs(size["bend"]) < 0.0008 else []
            name = f"{self.one(shape)} {name}" if shape else name
        return name

    def light(self) -> str:
        """What light it is in."""
        light = self.content.light
        if self.content.domain == "indoor":
            return self.one((f"in {light}", f"with {light}", f"lit by {light}"))
        return words.SKIES[light]

    def surface(self) -> str:
        """What a big surface is made of."""
        surfaces = self.content.surfaces
        if self.content.domain == "road":
            return self.one((f"with {surfaces['ground']} beside it", f"beside {surfaces['ground']}", f"with {surfaces['ground']}"))
        which = self.one(("floor", "floor", "wall", "ceiling"))
        colour, _, material = surfaces[which].rpartition(" ")
        texture = self.one(words.MATERIAL_WORDS.get(material) or ("",))
        phrase = f"{self.one(words.COLOUR_WORDS[colour])} {texture}".strip()
        return f"with {phrase} walls" if which == "wall" else f"with {an(phrase)} {which}"

    def camera(self) -> str:
        """Whether it is seen from high up or low down; "" where neither."""
        low, high = (0.8, 1.8) if self.content.domain == "indoor" else (1.2, 2.4)  # metres above the ground
        if self.content.camera_height > high:
            return self.one((" seen from above", " seen from high up"))
        return self.one((" seen from low down", " seen from near the ground")) if self.content.camera_height < low else ""
