"""A training by two processes on the CPU, as a program: rank 0 starts the other, which runs this file again."""

import json
import sys
from pathlib import Path

from tests.training.stub import Ball, numbers, run

if __name__ == "__main__":
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    model = Ball()
    result = run(model, numbers(0.1, 0.2, 0.4, 0.5), folder, steps=30, batch_shapes=4, runtime={"devices": devices})
    report = {"radius": float(result.weights["radius"]), "history": result.history, "leads": result.leads}
    (folder / f"{'first' if result.leads else 'second'}.json").write_text(json.dumps(report))
