"""A training by two processes on the CPU, as a program: rank 0 starts the other, which runs this file again."""

import json
import sys
from pathlib import Path

from tests.training.stub import Ball, numbers, run

if __name__ == "__main__":
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    model = Ball()
    # Batches of three, which two processes cannot share evenly, and of one, which leaves a process without any.
    settings = {"steps": 30, "batch_shapes": 3, "keep_last_batch": True, "accumulate": 2}
    result = run(model, numbers(0.1, 0.2, 0.4, 0.5), folder, runtime={"devices": devices}, **settings)
    report = {"radius": float(result.weights["radius"]), "history": result.history, "leads": result.leads}
    (folder / f"{'first' if result.leads else 'second'}.json").write_text(json.dumps(report))
