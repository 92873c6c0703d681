"""The categories of ShapeNetCore: WordNet synset, the name used in papers, and what is odd about two versions.

Folders are the truth: `taxonomy.json` of the archives names more synsets than there are folders.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMES = {
    "02691156": "airplane",
    "02747177": "bin",
    "02773838": "bag",
    "02801938": "basket",
    "02808440": "bathtub",
    "02818832": "bed",
    "02828884": "bench",
    "02834778": "bicycle",
    "02843684": "birdhouse",
    "02858304": "boat",
    "02871439": "bookshelf",
    "02876657": "bottle",
    "02880940": "bowl",
    "02924116": "bus",
    "02933112": "cabinet",
    "02942699": "camera",
    "02946921": "can",
    "02954340": "cap",
    "02958343": "car",
    "02992529": "cellphone",
    "03001627": "chair",
    "03046257": "clock",
    "03085013": "keyboard",
    "03207941": "dishwasher",
    "03211117": "display",
    "03261776": "earphone",
    "03325088": "faucet",
    "03337140": "file cabinet",
    "03467517": "guitar",
    "03513137": "helmet",
    "03593526": "jar",
    "03624134": "knife",
    "03636649": "lamp",
    "03642806": "laptop",
    "03691459": "loudspeaker",
    "03710193": "mailbox",
    "03759954": "microphone",
    "03761084": "microwave",
    "03790512": "motorcycle",
    "03797390": "mug",
    "03928116": "piano",
    "03938244": "pillow",
    "03948459": "pistol",
    "03991062": "flowerpot",
    "04004475": "printer",
    "04074963": "remote control",
    "04090263": "rifle",
    "04099429": "rocket",
    "04225987": "skateboard",
    "04256520": "sofa",
    "04330267": "stove",
    "04379243": "table",
    "04401088": "telephone",
    "04460130": "tower",
    "04468005": "train",
    "04530566": "vessel",
    "04554684": "washer",
}

ALIASES = {
    "plane": "02691156",
    "aeroplane": "02691156",
    "trash bin": "02747177",
    "ashcan": "02747177",
    "mobile phone": "02992529",
    "monitor": "03211117",
    "speaker": "03691459",
    "motorbike": "03790512",
    "couch": "04256520",
    "phone": "04401088",
    "watercraft": "04530566",
    "ship": "04530566",
    "washing machine": "04554684",
}

# Folders that only version 1 has.
ONLY_V1 = ("02834778", "02858304")

# Child folder → the folder of its parent, which holds the same models again.
PARENTS = {"02858304": "04530566", "02992529": "04401088"}


def synset_of(category: str) -> str:
    """The synset of a category given by name or by synset; a lost leading zero is put back.

    Raises ValueError with the nearest names where it is neither.
    """
    text = category.strip()
    if text.isdigit() and len(text) in (7, 8):
        return text.zfill(8)
    synsets = {name: synset for synset, name in NAMES.items()} | ALIASES
    name = text.lower().replace("_", " ").replace("-", " ")
    if name in synsets:
        return synsets[name]
    raise ValueError(f"{category!r} is no ShapeNet category; {nearest(name, synsets)}")


def name_of(synset: str) -> str:
    """The name of a synset, or the synset itself where it has none."""
    return NAMES.get(synset, synset)


def quoted_hint(value: int) -> str:
    """What to write for a synset that YAML read as a number: 04256520 looks octal and becomes 1138000."""
    synset = next((text for text in (f"{value:08o}", f"{value:08d}") if text in NAMES), f"{value:08d}")
    return f'YAML read a synset without quotes as the number {value}; write "{synset}" with quotes'


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that name the most similar known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
