"""The demo's chairs, tables and airplanes, drawn at random as closed parts pushed into each other.

Frame of ShapeNetCore.v2: +Y up, front -Z (a chair's back is at +Z, an airplane's nose at -Z). Lengths are in units of
about the longest edge; no wall is thinner than about 0.03. Every part is a sweep: a convex profile carried along one
axis, closed by two caps, faces outward. Defects are not made here but in `pipeline.sources.demo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One named piece of a shape.

    vertices: (v, 3) float64. faces: blocks of polygons with equally many corners, each (n, k) with indices into the
    vertices, counter-clockwise seen from outside. A part as swept has its sides first and then the two caps.
    """

    name: str
    vertices: np.ndarray
    faces: tuple[np.ndarray, ...]


def sweep(name: str, profile: np.ndarray, axis: str, centres: object, half_sizes: object) -> Part:
    """Carry a profile along an axis.

    profile: (n, 2) convex, counter-clockwise, inside [-1, 1]², in the plane of the two axes that follow `axis`
    cyclically (z and x for "y"). centres: (m, 3), increasing along the axis. half_sizes: (m, 2) scale of the profile
    at each centre; one pair serves all.
    """
    along = "xyz".index(axis)
    centres = np.asarray(centres, np.float64)
    half_sizes = np.broadcast_to(np.asarray(half_sizes, np.float64), (len(centres), 2))
    rings = np.repeat(centres[:, None, :], len(profile), axis=1)  # (m, n, 3)
    for column, direction in enumerate(((along + 1) % 3, (along + 2) % 3)):
        rings[:, :, direction] += half_sizes[:, None, column] * profile[:, column]
    index = np.arange(rings.shape[0] * rings.shape[1]).reshape(rings.shape[:2])
    ahead = np.roll(index, -1, axis=1)
    sides = np.stack([index[:-1], ahead[:-1], ahead[1:], index[1:]], axis=-1).reshape(-1, 4)
    return Part(name, rings.reshape(-1, 3), (sides, np.stack([index[0, ::-1], index[-1]])))


def box(name: str, low: object, high: object) -> Part:
    """An axis-aligned box between two corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    x, z = (x0 + x1) / 2, (z0 + z1) / 2
    return sweep(name, SQUARE, "y", [(x, y0, z), (x, y1, z)], ((z1 - z0) / 2, (x1 - x0) / 2))


def mirrored(part: Part) -> Part:
    """The part's mirror image in x, faces still outward."""
    return replace(part, vertices=part.vertices * (-1, 1, 1), faces=tuple(f[:, ::-1] for f in part.faces))


def turned(part: Part, angle: float) -> Part:
    """The part turned about the vertical axis by an angle in radians."""
    x, y, z = part.vertices.T
    c, s = np.cos(angle), np.sin(angle)
    return replace(part, vertices=np.stack([c * x + s * z, y, c * z - s * x], axis=1))


def disc(corners: int, power: float = 2.0) -> np.ndarray:
    """A superellipse as a profile: a circle at power 2, a square with round corners above."""
    angles = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.sign(circle) * np.abs(circle) ** (2 / power)


def pick(rng: np.random.Generator, options: Sequence, chances: Sequence[float] | None = None) -> Any:
    """One of the options, each with its chance (all the same by default)."""
    return options[rng.choice(len(options), p=chances)]


SQUARE = np.array([(1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)])
OUTLINES = {"square": SQUARE, "rounded": disc(24, power=5.0), "round": disc(24)}
AIRFOIL = np.array(  # thickness, chord; the leading edge at -1
    [(0, -1), (0.8, -0.75), (1, -0.3), (0.75, 0.4), (0.3, 1), (-0.3, 1), (-0.75, 0.4), (-1, -0.3), (-0.8, -0.75)]
)


@dataclass(frozen=True)
class Board:
    """A seat or a table top: a horizontal plate, half sizes in x and z, between two heights."""

    name: str
    outline: str
    half_x: float
    half_z: float
    bottom: float
    top: float

    def part(self) -> Part:
        centres = [(0, self.bottom, 0), (0, self.top, 0)]
        return sweep(self.name, OUTLINES[self.outline], "y", centres, (self.half_z, self.half_x))

    def corner(self, margin: float) -> tuple[float, float]:
        """Where in x and z a leg of half thickness `margin` stands so that it stays under the board."""
        reach = {"square": 0.97, "rounded": 0.86, "round": 0.68}[self.outline]  # a round outline has no corners
        return self.half_x * reach - margin, self.half_z * reach - margin

    @property
    def under(self) -> float:
        """Height to which supports reach: nearly through the board, so that they still touch one without thickness."""
        return self.top - 0.005


def chair(rng: np.random.Generator) -> list[Part]:
    """Seat, base (three, four or five legs, pedestal, side panels), back (panel, slats, rails or none), arms."""
    top = rng.uniform(0.42, 0.48)
    outline = pick(rng, ["square", "rounded", "round"], [0.45, 0.3, 0.25])
    half_x, half_z = rng.uniform(0.23, 0.28), rng.uniform(0.22, 0.26)
    seat = Board("seat", outline, half_x, half_z, top - rng.uniform(0.07, 0.10), top)
    base = pick(rng, [four_legs, three_legs, pedestal, star, panels], [0.55, 0.1, 0.1, 0.15, 0.1])
    parts = [seat.part(), *base(rng, seat)]
    if base is four_legs and rng.random() < 0.35:
        parts += stretchers(rng, seat)
    if rng.random() < 0.1:
        return parts
    back = Back(seat, rng.uniform(0.88, 1.02), rng.uniform(0.0, 0.08), rng.uniform(0.026, 0.036))
    parts += pick(rng, [panel_back, slat_back, rail_back], [0.5, 0.25, 0.25])(rng, back)
    return parts + (arms(rng, back) if rng.random() < 0.35 else [])


def table(rng: np.random.Generator) -> list[Part]:
    """Square, rounded, round or oval top; four or three legs, pedestal, star or side panels; shelf and apron."""
    outline = pick(rng, ["square", "rounded", "round"], [0.5, 0.2, 0.3])
    half_x, half_z, top = rng.uniform(0.42, 0.5), rng.uniform(0.28, 0.42), rng.uniform(0.5, 0.68)
    if outline == "round" and rng.random() < 0.5:
        half_x = half_z = rng.uniform(0.38, 0.46)
    board = Board("top", outline, half_x, half_z, top - rng.uniform(0.06, 0.09), top)
    base = pick(rng, [four_legs, three_legs, pedestal, star, panels], [0.6, 0.08, 0.12, 0.08, 0.12])
    parts = [board.part(), *base(rng, board)]
    if base in (four_legs, panels) and rng.random() < 0.4:
        x, z = board.corner(0.02)
        height = rng.uniform(0.25, 0.45) * top
        parts.append(box("shelf", (-x, height - 0.025, -z), (x, height + 0.025, z)))
    elif base is four_legs and rng.random() < 0.4:
        x, z = board.corner(0.035)
        parts.append(box("apron", (-x, board.bottom - 0.07, -z), (x, board.bottom + 0.01, z)))
    return parts


def four_legs(rng: np.random.Generator, board: Board) -> list[Part]:
    half, profile = rng.uniform(0.028, 0.04), _leg_profile(rng)
    x, z = board.corner(half)
    splay, taper = pick(rng, [0.0, rng.uniform(0.02, 0.05)]), rng.uniform(0.75, 1.0)
    corners = [(-x, -z), (x, -z), (-x, z), (x, z)]
    return [_leg(profile, board, corner, half, splay, taper) for corner in corners]


def three_legs(rng: np.random.Generator, board: Board) -> list[Part]:
    half, profile = rng.uniform(0.032, 0.042), _leg_profile(rng)
    x, z = board.corner(half)
    splay = rng.uniform(0.0, 0.05)
    return [_leg(profile, board, corner, half, splay, 0.8) for corner in [(-x, -z), (x, -z), (0.0, z)]]


def _leg_profile(rng: np.random.Generator) -> np.ndarray:
    return SQUARE if rng.random() < 0.6 else disc(12)


def _leg(profile: np.ndarray, board: Board, corner: tuple, half: float, splay: float, taper: float) -> Part:
    x, z = corner
    foot = (x + splay * np.sign(x), 0.0, z + splay * np.sign(z))
    return sweep("leg", profile, "y", [foot, (x, board.under, z)], [(half * taper,) * 2, (half,) * 2])


def pedestal(rng: np.random.Generator, board: Board) -> list[Part]:
    radius, thick = rng.uniform(0.04, 0.06), rng.uniform(0.045, 0.06)
    spread = min(board.half_x, board.half_z) * rng.uniform(0.65, 0.9)
    centres, radii = [(0, 0, 0), (0, 0.7 * thick, 0), (0, thick, 0)], spread * np.array([1.0, 1.0, 0.8])
    foot = sweep("foot", disc(24), "y", centres, np.stack([radii, radii], axis=1))
    return [_column(board, radius, thick / 2), foot]


def star(rng: np.random.Generator, board: Board) -> list[Part]:
    half, count = rng.uniform(0.026, 0.034), pick(rng, [4, 5])
    length = min(board.half_x, board.half_z) * rng.uniform(0.85, 1.0)
    ends = [(0, half + 0.01, -0.02), (0, half, length)]
    bar = sweep("foot", SQUARE, "z", ends, [(half, half + 0.01), (half, half)])
    spokes = [turned(bar, 2 * np.pi * k / count) for k in range(count)]
    return [_column(board, rng.uniform(0.035, 0.05), half), *spokes]


def _column(board: Board, radius: float, bottom: float) -> Part:
    return sweep("column", disc(16), "y", [(0, bottom, 0), (0, board.under, 0)], (radius, radius))


def panels(rng: np.random.Generator, board: Board) -> list[Part]:
    half = rng.uniform(0.022, 0.032)
    x, z = board.corner(half)
    return [box("side", (s * x - half, 0, -z), (s * x + half, board.under, z)) for s in (-1, 1)]


def stretchers(rng: np.random.Generator, board: Board) -> list[Part]:
    x, z = board.corner(0.035)
    low = rng.uniform(0.3, 0.5) * board.bottom
    sides = [box("stretcher", (s * x - 0.02, low, -z), (s * x + 0.02, low + 0.04, z)) for s in (-1, 1)]
    return [*sides, box("stretcher", (-x, low, -0.02), (x, low + 0.04, 0.02))]


@dataclass(frozen=True)
class Back:
    """A chair's back: how high it ends, how far it leans backwards there, and half its thickness."""

    seat: Board
    top: float
    lean: float
    half: float

    @property
    def half_width(self) -> float:
        return self.seat.corner(0.0)[0]

    def centre(self, x: float, y: float) -> tuple[float, float, float]:
        """The point of the back's middle plane at a width and a height."""
        rise = (y - self.seat.bottom) / (self.top - self.seat.bottom)
        reach = 0.85 if self.seat.outline == "round" else 1.0
        return x, y, reach * self.seat.half_z - self.half + self.lean * rise

    def upright(self, name: str, x: float, low: float, high: float, half_x: float) -> Part:
        return sweep(name, SQUARE, "y", [self.centre(x, low), self.centre(x, high)], (self.half, half_x))

    def rail(self, low: float, high: float) -> Part:
        return self.upright("rail", 0.0, low, high, self.half_width - 0.01)

    def posts(self) -> list[Part]:
        x = self.half_width - 0.03
        return [self.upright("post", s * x, self.seat.bottom, self.top - 0.02, 0.03) for s in (-1, 1)]


def panel_back(rng: np.random.Generator, back: Back) -> list[Part]:
    narrow = rng.uniform(0.8, 1.0) * back.half_width
    low, high = back.centre(0.0, back.seat.bottom), back.centre(0.0, back.top)
    shoulder = back.centre(0.0, back.top - 0.08)
    sizes = [(back.half, back.half_width), (back.half, back.half_width), (back.half, narrow)]
    return [sweep("back", SQUARE, "y", [low, shoulder, high], sizes)]


def slat_back(rng: np.random.Generator, back: Back) -> list[Part]:
    count, bottom = pick(rng, [2, 3]), back.seat.bottom
    places = np.linspace(-1, 1, count + 2)[1:-1] * (back.half_width - 0.03)
    slats = [back.upright("slat", x, bottom, back.top - 0.03, 0.025) for x in places]
    return [*back.posts(), *slats, back.rail(back.top - rng.uniform(0.08, 0.14), back.top)]


def rail_back(rng: np.random.Generator, back: Back) -> list[Part]:
    count, thick = pick(rng, [2, 3]), rng.uniform(0.06, 0.09)
    tops = np.linspace(back.top, back.seat.top + 0.06, count + 1)[:-1]
    return [*back.posts(), *(back.rail(y - thick, y) for y in tops)]


def arms(rng: np.random.Generator, back: Back) -> list[Part]:
    x, front = back.half_width - 0.03, -back.seat.corner(0.04)[1]
    height = back.seat.top + rng.uniform(0.16, 0.24)
    rear = back.centre(x, height)[2] + back.half - 0.005
    parts = []
    for s in (-1, 1):
        parts.append(box("arm", (s * x - 0.032, height - 0.04, front), (s * x + 0.032, height, rear)))
        low, high = (s * x - 0.025, back.seat.bottom, front), (s * x + 0.025, height - 0.01, front + 0.05)
        parts.append(box("support", low, high))
    return parts


OVERLAP = -0.01  # where a right half starts, past the middle, so that it runs into the left one


@dataclass(frozen=True)
class Wing:
    """A pair of wings: middle of the right one's root and tip, (3,) each, with half thickness and half chord there."""

    root: np.ndarray
    tip: np.ndarray
    root_half: tuple[float, float]
    tip_half: tuple[float, float]

    def parts(self, name: str) -> list[Part]:
        right = sweep(name, AIRFOIL, "x", [self.root, self.tip], [self.root_half, self.tip_half])
        return [right, mirrored(right)]


def airplane(rng: np.random.Generator) -> list[Part]:
    """Fuselage, wings (low, middle or high; straight or swept), tail (also T-tail), engines (none to four)."""
    radius = rng.uniform(0.065, 0.085)
    high = pick(rng, [-0.5, 0.0, 0.6], [0.6, 0.2, 0.2]) * radius
    root = np.array([OVERLAP, high, rng.uniform(-0.08, 0.02)])
    reach, back = rng.uniform(0.4, 0.5), pick(rng, [rng.uniform(0.0, 0.05), rng.uniform(0.12, 0.24)])
    tip = root + np.array([reach, reach * rng.uniform(0.0, 0.1), back])
    wing = Wing(root, tip, (0.028, rng.uniform(0.11, 0.15)), (0.018, rng.uniform(0.05, 0.07)))
    engines = pick(rng, [wing_engines, rear_engines, propeller, no_engines], [0.5, 0.2, 0.2, 0.1])
    parts = [*fuselage(rng, radius), *wing.parts("wing"), *tail(rng, radius), *engines(rng, wing, radius)]
    return parts + (winglets(wing) if rng.random() < 0.3 else [])


def winglets(wing: Wing) -> list[Part]:
    foot, head = wing.tip - np.array([0.02, 0.0, 0.0]), wing.tip + np.array([0.01, 0.09, 0.04])
    chord = wing.tip_half[1]
    right = sweep("winglet", AIRFOIL[::-1, ::-1], "y", [foot, head], [(0.9 * chord, 0.018), (0.6 * chord, 0.018)])
    return [right, mirrored(right)]


def fuselage(rng: np.random.Generator, radius: float) -> list[Part]:
    stations = np.array([-0.5, -0.48, -0.43, -0.33, 0.15, 0.36, 0.5])
    widths = np.array([0.2, 0.5, 0.8, 1.0, 1.0, 0.75, 0.35]) * radius
    rise = np.array([-0.2, -0.15, -0.08, 0.0, 0.0, 0.15, 0.4]) * radius
    centres = np.stack([np.zeros(7), rise, stations], axis=1)
    return [sweep("fuselage", disc(16), "z", centres, np.stack([widths, widths * rng.uniform(1.0, 1.15)], axis=1))]


def tail(rng: np.random.Generator, radius: float) -> list[Part]:
    height, back = rng.uniform(0.17, 0.23), rng.uniform(0.02, 0.08)
    foot, head = np.array([0.0, 0.0, 0.39]), np.array([0.0, radius * 0.6 + height, 0.41 + back])
    chords = rng.uniform(0.08, 0.1), rng.uniform(0.05, 0.06)
    fin = sweep("fin", AIRFOIL[::-1, ::-1], "y", [foot, head], [(chords[0], 0.02), (chords[1], 0.018)])
    root = head + np.array([OVERLAP, -0.03, 0.0]) if rng.random() < 0.25 else np.array([OVERLAP, 0.4 * radius, 0.42])
    tip = root + np.array([rng.uniform(0.15, 0.2), 0.0, back])
    return [fin, *Wing(root, tip, (0.02, 0.07), (0.018, 0.045)).parts("tailplane")]


def wing_engines(rng: np.random.Generator, wing: Wing, radius: float) -> list[Part]:
    half, length = rng.uniform(0.028, 0.038), rng.uniform(0.07, 0.09)
    parts = []
    for share in pick(rng, [(0.38,), (0.32, 0.62)]):
        x, y, z = wing.root + share * (wing.tip - wing.root)
        front, below = z - 0.09, y - half - 0.012
        engine = _engine((x, below, front), half, length)
        pylon = box("pylon", (x - 0.019, below, front), (x + 0.019, y + 0.019, z))
        parts += [engine, pylon, mirrored(engine), mirrored(pylon)]
    return parts


def rear_engines(rng: np.random.Generator, wing: Wing, radius: float) -> list[Part]:
    half = rng.uniform(0.03, 0.038)
    engine = _engine((radius + half, 0.3 * radius, 0.26), half, rng.uniform(0.07, 0.09))
    pylon = box("pylon", (OVERLAP, 0.3 * radius - 0.019, 0.22), (radius + half, 0.3 * radius + 0.019, 0.3))
    return [engine, pylon, mirrored(engine), mirrored(pylon)]


def propeller(rng: np.random.Generator, wing: Wing, radius: float) -> list[Part]:
    spinner = sweep("spinner", disc(12), "z", [(0, 0, -0.56), (0, 0, -0.46)], [(0.02, 0.02), (0.035, 0.035)])
    reach = rng.uniform(0.12, 0.16)
    return [spinner, box("blade", (-reach, -0.02, -0.54), (reach, 0.02, -0.505))]


def no_engines(rng: np.random.Generator, wing: Wing, radius: float) -> list[Part]:
    return []


def _engine(centre: tuple, half: float, length: float) -> Part:
    x, y, z = centre
    sizes = [(0.85 * half,) * 2, (half,) * 2, (0.7 * half,) * 2]
    return sweep("engine", disc(12), "z", [(x, y, z - length), (x, y, z), (x, y, z + length)], sizes)


MAKERS = {"chair": chair, "table": table, "airplane": airplane}
