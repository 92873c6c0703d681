"""Rendered views in the layouts of 3D-R2N2 (Choy et al.) and of Occupancy Networks, which took them over."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Rejected
from pipeline.exchange.npz import read_npz, take, write_npz

JPEG_QUALITY = 95
MOST_PIXELS = 2048**2
LENS = 25  # what the originals' metadata call the field of view; the lens itself is in the cameras


def choy_files(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """rendering/00.png ..., renderings.txt and rendering_metadata.txt of one shape's views.

    A line of the metadata is azimuth, elevation, turn in the image plane, distance, lens; distance 1 is 1.75 diagonals.
    """
    pictures = arrays["views.images"]
    names = [f"{view:02d}.png" for view in range(len(pictures))]
    files = {f"rendering/{name}": png_bytes(picture) for name, picture in zip(names, pictures, strict=True)}
    lines = [f"{a:.9g} {e:.9g} 0 {d:.9g} {LENS}" for a, e, d in arrays["views.viewpoints"].tolist()]
    files["rendering/renderings.txt"] = "".join(f"{name}\n" for name in names).encode()
    files["rendering/rendering_metadata.txt"] = "".join(f"{line}\n" for line in lines).encode()
    return files


def onet_files(arrays: Mapping[str, np.ndarray], loc: np.ndarray, scale: float) -> dict[str, bytes]:
    """img_choy2016/000.jpg ... on white and cameras.npz, whose matrices start from the source frame."""
    files = {
        f"img_choy2016/{view:03d}.jpg": _jpeg_bytes(on_white(picture))
        for view, picture in enumerate(arrays["views.images"])
    }
    cameras = {}
    for view, pose in enumerate(arrays["views.extrinsics"].astype(np.float64)):
        rotation, shift = pose[:, :3], pose[:, 3]
        cameras[f"world_mat_{view}"] = np.column_stack([rotation, scale * shift - rotation @ loc])
        cameras[f"camera_mat_{view}"] = arrays["views.intrinsics"][view].astype(np.float64)
    return {**files, "img_choy2016/cameras.npz": write_npz(cameras)}


def read_views(pictures: Mapping[str, bytes], cameras: bytes, loc: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Views as `samples.views` gives them, without viewpoints, from an img_choy2016 folder.

    pictures: file name → bytes of the .jpg or .png files, whose numbers name their cameras. loc, scale: the shape's
    frame (points.npz). Pictures without transparency come back opaque. Raises Rejected where something is missing,
    damaged or does not fit together.
    """
    numbered = sorted((int(name.split(".")[0]), name) for name in pictures if re.fullmatch(r"\d{1,4}\.(jpg|png)", name))
    if not numbered:
        raise Rejected("it has no views")
    images = [picture_of(pictures[name]) for _, name in numbered]
    if len({image.shape for image in images}) > 1 or images[0].shape[0] != images[0].shape[1]:
        raise Rejected("its views are not square pictures of one size")
    matrices = read_npz(cameras)
    intrinsics = np.stack([take(matrices, f"camera_mat_{view}", 3, 3) for view, _ in numbered])
    world = np.stack([take(matrices, f"world_mat_{view}", 3, 4) for view, _ in numbered]).astype(np.float64)
    world[:, :, 3] = (world[:, :, 3] + world[:, :, :3] @ loc) / scale
    return {
        "images": np.stack(images),
        "intrinsics": intrinsics.astype(np.float32),
        "extrinsics": world.astype(np.float32),
    }


def on_white(picture: np.ndarray) -> np.ndarray:
    """A picture (S, S, 4) uint8 laid on white, (S, S, 3) uint8."""
    alpha = picture[..., 3:] / 255
    return np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def grey_on_white(pictures: np.ndarray) -> np.ndarray:
    """Pictures (..., 4) uint8 as IM-NET takes them: luminance of the colour (ITU-R 601), laid on white, (...) uint8."""
    alpha = pictures[..., 3] / 255
    grey = pictures[..., :3] @ np.array([0.299, 0.587, 0.114])
    return np.rint(grey * alpha + 255 * (1 - alpha)).astype(np.uint8)


def png_bytes(picture: np.ndarray) -> bytes:
    """The PNG file of a picture (S, S, 3 or 4) uint8."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png")
    return stream.getvalue()


def _jpeg_bytes(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "jpeg", quality=JPEG_QUALITY)
    return stream.getvalue()


def picture_of(content: bytes) -> np.ndarray:
    """A JPEG or PNG as (height, width, 4) uint8. Raises Rejected where it is none, or of more than 2048^2 pixels."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("jpeg", "png")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Rejected(f"a view has {image.width} x {image.height} pixels, more than 2048 x 2048")
            return np.array(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Rejected(f"a view is no picture that can be read: {error}") from error
