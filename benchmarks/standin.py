"""A stand-in for `python -m pipeline <verb> ...`: writes the outputs a job declares, in milliseconds, and no shapes.

Used by `benchmarks.dag` to bring the real workflow into the finished state. Standard library only, so that it starts
fast under `python -I -S`. Ledgers have the size and the columns of real ones.
"""

import hashlib
import json
import sys
from pathlib import Path

FIGURES = {"area": 2.437573007638817, "components": 1, "faces": 4096, "thickness": 0.05935634909355398}
TABLES = ("shapes.csv", "metrics.csv", "metrics.parquet", "summary.csv", "categories.csv")


def main(words: list[str]) -> None:
    """words: the command line behind `python`, that is -m pipeline <verb> --option value ..."""
    verb, options = words[2], parse_options(words[3:])
    output = Path(options["output"][0])
    if verb in ("run-shard", "generate-meshes", "evaluate-meshes"):
        source = options.get("inputs") or options["members"]
        write(output, ledger(output, source[0], options["settings"][0]))
    elif verb == "summarise":
        for name in TABLES:
            write(output / name, "a table\n")
    else:
        write(output, json.dumps({"verb": verb}) + "\n")
        if verb == "train-model":
            write(output.with_name("weights.safetensors"), "weights\n")
            write(output.with_name("history.csv"), "step,loss\n")
    write(Path(options["log"][0]), f"{verb} by the stand-in\n")
    write_receipt(Path(options["settings"][0]), options["receipt-from"], options["receipt-of"])


def parse_options(words: list[str]) -> dict[str, list[str]]:
    """Option name → its values."""
    options: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            values = options[word[2:]] = []
        else:
            values.append(word)
    return options


def ledger(output: Path, source: str, settings: str) -> str:
    """The text of a ledger for the shapes of a member file or of another ledger."""
    lines = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    shapes = [line["shape"] for line in lines if "shape" in line]
    header = {"ledger": 1, "stage": output.parent.name, "settings": settings, "inputs": {}, "remake": False}
    rows = [header, *(row_of(shape) for shape in shapes)]
    return seal("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def write_receipt(settings: Path, inputs: list[str], outputs: list[str]) -> None:
    """What `pipeline.receipts` writes; where the two differ, the measured runs would find jobs to run and stop."""
    results = settings.parent.parent
    receipt = {
        "fingerprint": settings.stem,
        "limits": {},
        "made": {path: digest_of(Path(path).read_bytes()) for path in outputs},
        "read": {path: digest_of(Path(path).read_bytes()) for path in inputs},
    }
    path = results / "receipts" / f"{Path(outputs[0]).relative_to(results)}.json"
    write(path, seal(json.dumps(receipt, sort_keys=True, separators=(",", ":")) + "\n"))


def seal(text: str) -> str:
    return text + json.dumps({"digest": digest_of(text.encode())}, separators=(",", ":")) + "\n"


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def row_of(shape: str) -> dict:
    key = hashlib.blake2b(shape.encode(), digest_size=20).hexdigest()
    return {
        "shape": shape,
        "status": "ok",
        "key": key,
        "file": f"stage/{key[:2]}/{key}-{key}.off",
        "digest": key,
        "size": 65536,
        "reason": "",
        "stage": "",
        "figures": FIGURES,
    }


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
