"""Light field distance: how differently two meshes look from all sides, by the program that everybody uses.

Chen et al., On visual similarity based 3D model retrieval (Eurographics 2003), as their program 3DRetrieval 1.8 has it.

A mesh is centred and scaled by its bounding box and drawn as 100 silhouettes of 256 x 256 pixels: 10 turned dodecahedra
with 10 of their corners each. A silhouette becomes 47 bytes: 35 region moments (MPEG-7's angular radial transform; the
paper has Zernike moments), 10 Fourier coefficients of its outline, circularity and eccentricity. The distance of two
meshes is the smallest, over 10 x 10 pairs of dodecahedra and their 60 rotations, of the sum of 10 weighted L1
distances. It is an integer, 0 for scaled and moved copies, in practice up to about 20,000; mirror images look alike to
it. It is only roughly rotation invariant: align the meshes first, and keep one up axis (y) in all of a study.

Sheet lfd.md; its section numbers stand beside what they define. "x" runs to the right and "y" upwards, so row 0 of an
image is its bottom.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.evaluation.outline import MARGIN, outline
from pipeline.evaluation.silhouette import silhouette

Variant = Literal["full", "pip"]

PIXELS = 256  # edge of an image; the window is [-1, 1]^2, so an object of longest edge 1 covers about 128
VIEWS, FIELDS = 10, 10
LATTICE = 50  # radius of the lattice on which the moments' basis is given, in steps
ANGULAR, RADIAL = 12, 3  # orders of the moments; the order (0, 0) is not kept
HARMONICS = 10
COEFFICIENTS = ANGULAR * RADIAL - 1 + HARMONICS + 2

# Section 2: the corners of the first dodecahedron that are rendered (the opposite ones give mirror images), and the
# rotations of the other nine.
CORNERS = np.array(
    [
        (0.52573, 0.38197, 0.85065),
        (-0.20081, 0.61803, 0.85065),
        (-0.64984, 0.00000, 0.85065),
        (-0.20081, -0.61803, 0.85065),
        (0.52573, -0.38197, 0.85065),
        (0.85065, -0.61803, 0.20081),
        (1.05150, 0.00000, -0.20081),
        (0.85065, 0.61803, 0.20081),
        (0.32492, 1.00000, -0.20081),
        (-0.32492, 1.00000, 0.20081),
    ]
)
# fmt: off
ROTATIONS = np.array([
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.8031027, -0.3469007, 0.4844439), (0.2697017, 0.9366256, 0.2235923), (-0.5313069, -0.0489122, 0.8457663)),
    ((0.6885528, -0.5218825, -0.5035214), (0.4672562, 0.8502683, -0.2423127), (0.5545870, -0.0684284, 0.8293074)),
    ((0.7263872, 0.4195231, -0.5443914), (-0.4154427, 0.8990169, 0.1384778), (0.5475117, 0.1255749, 0.8273221)),
    ((0.8843631, -0.0858735, -0.4588329), (0.0709512, 0.9962408, -0.0497001), (0.4613760, 0.0113981, 0.8871315)),
    ((0.9908621, 0.0496895, -0.1253922), (-0.1047768, 0.8689968, -0.4835974), (0.0849357, 0.4923165, 0.8662623)),
    ((0.9142881, 0.4046727, -0.0178123), (-0.4047345, 0.9144342, 0.0001463), (0.0163474, 0.0070755, 0.9998413)),
    ((0.9112351, -0.4058755, -0.0701115), (0.3013837, 0.7730579, -0.5581660), (0.2807462, 0.4874900, 0.8267618)),
    ((0.9565731, -0.2162279, -0.1954826), (0.2819989, 0.8562308, 0.4328342), (0.0737873, -0.4691634, 0.8800234)),
    ((0.9083273, -0.4181720, 0.0085802), (0.4182520, 0.9082457, -0.0124492), (-0.0025870, 0.0148967, 0.9998857)),
])
# fmt: on

# Section 8: the 60 rotations of the dodecahedron as permutations of its 10 pairs of corners; digit m is the corner of
# the first mesh that meets corner m of the second.
_ALIGNMENTS = """
0123456789 1078956234 1234078956 2195678340 2340195678 3267895401 3401267895 4389567012 0456789123 4012389567
4567012389 5438912670 5670438912 6591238704 6704591238 7623891045 0789123456 7045623891 7891045623 8762345910
8910762345 9834562107 1956234078 9107834562 9562107834 5983407621 5621983407 6540783219 2678340195 6219540783
6783219540 7654019832 7832654019 8701954326 3895401267 8326701954 8954326701 9870126543 5912670438 9543870126
6238704591 2659104387 2387659104 3210459876 8345910762 3876210459 3459876210 4321076598 5407621983 4598321076
4076598321 0432198765 7019832654 0765432198 0198765432 1043265987 9126543870 1987043265 2104387659 1265987043
"""
ALIGNMENTS = np.array([[int(digit) for digit in word] for word in _ALIGNMENTS.split()])


def light_field_descriptor(mesh: Any) -> np.ndarray:
    """What the distance knows of a mesh (anything with vertices and faces): (10, 10, 47) uint8, one row per image.

    Index order dodecahedron, corner, coefficient: 35 moments, 10 of the outline, circularity, eccentricity. Images in
    which a flat mesh is seen edge-on are all zeros. Materials, windings, hidden faces and unused vertices play no part.
    Raises Rejected for a mesh without faces, without extent or with vertices that are not finite.
    """
    mesh = _normalised(Mesh(mesh.vertices, mesh.faces))
    descriptor = np.zeros((FIELDS, VIEWS, COEFFICIENTS), np.uint8)
    for field, rotation in enumerate(ROTATIONS):
        images = [_Image(silhouette(mesh, rotation @ corner, PIXELS)) for corner in CORNERS]
        radius = max(image.radius for image in images)
        moments = _moments(np.stack([image.on_lattice(radius) for image in images]))
        for view, image in enumerate(images):
            descriptor[field, view] = _bytes(moments[view], image)
    return descriptor


def light_field_distance(a: Any, b: Any, variant: Variant = "full") -> int:
    """The light field distance of two meshes; each a mesh or its `light_field_descriptor`.

    variant: "full" is the authors' program and symmetric. "pip" is the Linux port's own distance program (PyPI
    light-field-distance), which never reads the second mesh's eccentricities: neither symmetric nor 0 for equal meshes.
    """
    a, b = (x if isinstance(x, np.ndarray) else light_field_descriptor(x) for x in (a, b))
    return int(light_field_distances(a[None], b[None], variant)[0, 0])


def light_field_distances(first: np.ndarray, second: np.ndarray, variant: Variant = "full") -> np.ndarray:
    """Distances (n, m) int64 of all pairs of descriptors (n, 10, 10, 47) and (m, 10, 10, 47); see section 8."""
    if variant not in ("full", "pip"):
        raise ValueError(f"there is no light field distance {variant!r}; there are full, pip")
    ours, theirs = _weighted(first), _weighted(second)
    if variant == "pip":
        theirs[..., -1] = 0
    return np.array([[_least(a, b) for b in theirs] for a in ours], np.int64).reshape(len(first), len(second))


def _weighted(descriptors: np.ndarray) -> np.ndarray:
    """One row per image whose plain L1 distance is the images' distance: outline and circularity count double."""
    descriptors = np.asarray(descriptors)
    if descriptors.shape[1:] != (FIELDS, VIEWS, COEFFICIENTS) or descriptors.dtype != np.uint8:
        raise ValueError(f"descriptors are (n, 10, 10, 47) uint8, got {descriptors.shape} {descriptors.dtype}")
    weights = np.ones(COEFFICIENTS)
    weights[-HARMONICS - 2 : -1] = 2
    return (descriptors * weights).reshape(len(descriptors), FIELDS * VIEWS, COEFFICIENTS)


def _least(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest sum of ten image distances over pairs of dodecahedra and their alignments; rows (100, 47)."""
    from scipy.spatial.distance import cdist

    apart = cdist(first, second, "cityblock").reshape(FIELDS, VIEWS, FIELDS, VIEWS)
    return apart[:, ALIGNMENTS, :, np.arange(VIEWS)].sum(axis=1).min()  # (60, 10, 10 first, 10 second)


def _normalised(mesh: Mesh) -> Mesh:
    """The mesh centred by the box of its used vertices, longest edge 1 (section 1)."""
    if len(mesh.faces) == 0:
        raise Rejected("the mesh has no faces, so nothing of it can be seen")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise Rejected(f"faces name vertices up to {mesh.faces.max()}, the mesh has {len(mesh.vertices)}")
    used = mesh.vertices[np.unique(mesh.faces)]
    if not np.isfinite(used).all():
        raise Rejected(f"{(~np.isfinite(used)).any(axis=1).sum()} of {len(used)} vertices are not finite")
    low, high = used.min(axis=0), used.max(axis=0)
    if not (high > low).any():
        raise Rejected("all vertices are at one place, so there is no size to scale to")
    middle = low + (high - low) / 2
    vertices = (mesh.vertices - middle) / (high - low).max()
    vertices[~np.isfinite(vertices).all(axis=1)] = 0  # unused
    return Mesh(vertices, mesh.faces)


class _Image:
    """The object pixels of a silhouette, cut out with a margin, and what is measured on them (sections 3 to 6)."""

    def __init__(self, covered: np.ndarray) -> None:
        self.pixels, self.count = covered[:0, :0], int(np.count_nonzero(covered))
        self.radius = 0.0
        if self.count == 0:
            return
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        self.pixels = np.pad(covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], MARGIN)
        height, width = self.pixels.shape
        self.y, self.x = (
            np.arange(height) - (height - 1) / 2,
            np.arange(width) - (width - 1) / 2,
        )  # from the box's centre
        first, last = self.pixels.argmax(axis=1), width - 1 - self.pixels[:, ::-1].argmax(axis=1)
        reach = np.maximum(np.abs(self.x[first]), np.abs(self.x[last]))[self.pixels.any(axis=1)]
        self.radius = float(np.hypot(reach, self.y[self.pixels.any(axis=1)]).max())

    def on_lattice(self, radius: float) -> np.ndarray:
        """The pixels spread bilinearly over the moments' lattice, (102, 102), as shares of their number."""
        if self.count == 0:
            return np.zeros((2 * LATTICE + 2,) * 2)
        scale = LATTICE / radius if radius else 0.0
        return _bilinear(self.y * scale).T @ self.pixels @ _bilinear(self.x * scale) / self.count

    def harmonics(self) -> np.ndarray:
        """The first coefficients of the outline's distance from the centre, over the zeroth; (10,)."""
        result = np.zeros(HARMONICS)
        path = outline(self.pixels)
        if len(path) >= 8:
            x, y = path.T
            spectrum = np.abs(np.fft.rfft(np.hypot(self.x[x], self.y[y])))[: HARMONICS + 1]
            result[: len(spectrum) - 1] = spectrum[1:] / spectrum[0]
        return result

    def circularity(self) -> float:
        """4 pi area over the squared number of edge pixels: those with background among their eight neighbours."""
        if self.count == 0:
            return 0.0
        rows = self.pixels[1:-1, :-2] & self.pixels[1:-1, 1:-1] & self.pixels[1:-1, 2:]
        up, down = self.pixels[2:], self.pixels[:-2]
        whole = rows & up[:, :-2] & up[:, 1:-1] & up[:, 2:] & down[:, :-2] & down[:, 1:-1] & down[:, 2:]
        edge = self.count - np.count_nonzero(whole)
        return min(1.0, 4 * np.pi * self.count / edge**2)

    def eccentricity(self) -> float:
        if self.count < 2:
            return 0.0
        of_rows, of_columns = self.pixels.sum(axis=1), self.pixels.sum(axis=0)
        a, b = (of_columns * self.x**2).sum(), (of_rows * self.y**2).sum()
        c = self.y @ self.pixels @ self.x
        return min(1.0, ((a - b) ** 2 + 4 * c**2) / (a + b) ** 2)


def _bilinear(offsets: np.ndarray) -> np.ndarray:
    """Weights (n, 102) that share points at these offsets from the lattice's centre between their two neighbours."""
    place = LATTICE + offsets
    # The margin's pixels may fall off the lattice; they are background, so any place on it serves them.
    place = np.clip(place, 0, 2 * LATTICE)
    below = np.floor(place).astype(np.int64)
    weights = np.zeros((len(offsets), 2 * LATTICE + 2))
    points = np.arange(len(offsets))
    weights[points, below] = 1 - (place - below)
    weights[points, below + 1] = place - below
    return weights


def _moments(images: np.ndarray) -> np.ndarray:
    """Moments (n, 35) of images (n, 102, 102) on the lattice: (0, 1), (0, 2), then (p, 0 ... 2) for p = 1 ... 11."""
    flat = images.reshape(len(images), -1)
    basis = _basis()
    return np.hypot(flat @ basis.real, flat @ basis.imag)[:, 1:]


@cache
def _basis() -> np.ndarray:
    """The angular radial transform's 36 functions on the lattice, (102 * 102, 36) complex; 0 from the rim outwards."""
    axis = np.arange(2 * LATTICE + 2) - LATTICE
    y, x = np.meshgrid(axis, axis, indexing="ij")
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    functions = [
        np.cos(np.pi * radial * distance / LATTICE) * np.exp(1j * angular * angle)
        for angular in range(ANGULAR)
        for radial in range(RADIAL)
    ]
    return np.where(distance < LATTICE, functions, 0).reshape(ANGULAR * RADIAL, -1).T


def _bytes(moments: np.ndarray, image: _Image) -> np.ndarray:
    """The 47 coefficients of an image as they are stored."""
    scaled = np.concatenate(
        [256 * moments, 512 * image.harmonics(), [256 * image.circularity(), 256 * image.eccentricity()]]
    )
    return np.minimum(np.floor(scaled), 255).astype(np.uint8)
