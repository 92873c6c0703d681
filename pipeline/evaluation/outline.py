"""The outline of a silhouette as the light field distance walks it (sheet lfd.md, section 5).

Images are (h, w) of index order y, x with y upwards. A silhouette in several parts is grown until one contour holds it,
then thinned back around its pixels, so that thin bridges join the parts.
"""

from __future__ import annotations

import numpy as np

MARGIN = 4  # background pixels that an image needs all round: growing takes three
ONE_PART = 0.95  # share of the pixels within one contour above which an image counts as one part

# For each heading the moves (dx, dy) to try, with the heading they lead to; 0 is +y, 1 +x, 2 -y, 3 -x.
MOVES = (
    ((-1, 1, 3), (0, 1, 0), (1, 1, 0)),
    ((1, 1, 0), (1, 0, 1), (1, -1, 1)),
    ((1, -1, 1), (0, -1, 2), (-1, -1, 2)),
    ((-1, -1, 2), (-1, 0, 3), (-1, 1, 3)),
)
RING = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))  # the eight neighbours, in a circle
SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # the order of the passes of a round of thinning


def outline(image: np.ndarray) -> np.ndarray:
    """The pixels (n, 2) int64, x and y, along the outline of an image with MARGIN background pixels all round.

    It begins and ends with the same pixel; bridges of one pixel are walked there and back, holes not at all. One row
    for a lone pixel, none for an empty image.
    """
    if not image.any():
        return np.zeros((0, 2), np.int64)
    path = _walk(image)
    if not _is_one_part(image, path):
        path = _walk(_thinned(_grown_to_one_part(image), image))
    return np.stack([path % image.shape[1], path // image.shape[1]], axis=1)


def _walk(image: np.ndarray) -> np.ndarray:
    """Flat indices of the pixels along the outline of the part met first; that one pixel where it has no neighbour."""
    height, width = image.shape
    pixels = image.tobytes()
    moves = [[(dy * width + dx, heading) for dx, dy, heading in options] for options in MOVES]
    start = pixels.find(1)
    # Here the walk passes the start once more before it has seen all, coming from the left.
    twice = pixels[start + width - 1] and not pixels[start + width] and (pixels[start + width + 1] or pixels[start + 1])
    path, place, heading = [start], start, 0
    for _ in range(4 * height * width):  # the states of a walk; none comes twice
        for _ in MOVES:
            move = next((move for move in moves[heading] if pixels[place + move[0]]), None)
            if move:
                break
            heading = (heading + 1) % 4
        else:
            break
        place, heading = place + move[0], move[1]
        path.append(place)
        if place == start and not (twice and heading == 1):
            break
    return np.array(path)


def _is_one_part(image: np.ndarray, path: np.ndarray) -> bool:
    """Whether a contour (flat indices) holds nearly all pixels: a flood from the border that it stops misses them."""
    from scipy.ndimage import label

    passable = np.ones(image.shape, bool)
    passable.reshape(-1)[path] = False
    parts, _ = label(passable)
    held = np.count_nonzero(image & (parts != parts[0, 0]))
    return held > ONE_PART * np.count_nonzero(image)


def _grown_to_one_part(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    grown = binary_dilation(image, np.ones((3, 3), bool))
    if _is_one_part(grown, _walk(grown)):
        return grown
    round_brush = np.ones((5, 5), bool)
    round_brush[np.ix_([0, -1], [0, -1])] = False
    grown = binary_dilation(grown, round_brush)
    if _is_one_part(grown, _walk(grown)):
        return grown
    y, x = np.nonzero(image)
    whole = np.zeros_like(image)
    whole[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return whole


def _thinned(grown: np.ndarray, image: np.ndarray) -> np.ndarray:
    """What is left of `grown` when pixels outside `image` are peeled off that no connection needs.

    A round has four passes, one for each side on which a pixel to go must have background; a pass judges all pixels
    before it takes any. It ends with the round that takes none.
    """
    width = image.shape[1]
    pixels = grown.astype(np.uint8).reshape(-1)
    ring = [dy * width + dx for dx, dy in RING]
    left = np.flatnonzero(grown & ~image)
    before = None
    while before != len(left):
        before = len(left)
        for dx, dy in SIDES:
            edge = left[pixels[left + dy * width + dx] == 0]
            neighbours = np.zeros(len(edge), np.uint8)
            for bit, offset in enumerate(ring):
                neighbours |= pixels[edge + offset] << np.uint8(bit)
            pixels[edge[_MAY_GO[neighbours]]] = 0
            left = left[pixels[left] != 0]
    return pixels.reshape(image.shape).astype(bool)


def _may_go(neighbours: int) -> bool:
    """Whether a pixel with these neighbours (bits in the order of RING) can go: not an end, and joining nothing."""
    there = [bool(neighbours >> bit & 1) for bit in range(8)]
    groups, group = [], []
    first_gap = there.index(False) if False in there else 0
    for bit in [(first_gap + k) % 8 for k in range(8)]:
        if there[bit]:
            group.append(bit)
        elif group:
            groups, group = [*groups, group], []
    groups += [group] if group else []
    beside = sum(any(bit % 2 == 0 for bit in group) for group in groups)  # even bits share an edge with the pixel
    return sum(there) != 1 and beside <= 1


_MAY_GO = np.array([_may_go(neighbours) for neighbours in range(256)])
