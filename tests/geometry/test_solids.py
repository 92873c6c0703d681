import os
import subprocess
import sys

import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.measures import volume
from pipeline.geometry.solids import mesh_of, solid
from tests import solids

BUSY = """
import os, time
from pipeline.geometry.simplify import simplified
from tests import solids

mesh = solids.icosphere(0.5, subdivisions=7)
before = os.sched_getaffinity(0)
wall, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
simplified(mesh, 1e-4)
others = (time.process_time() - process) - (time.thread_time() - thread)
assert os.sched_getaffinity(0) == before
print(others)
"""


def test_a_mesh_goes_to_a_solid_and_back():
    mesh = solids.box((1, 2, 3))
    assert volume(mesh_of(solid(mesh))) == pytest.approx(6)


def test_what_is_no_solid_is_refused():
    mesh = solids.box()
    with pytest.raises(Rejected, match="not manifold"):
        solid(Mesh(mesh.vertices, mesh.faces[1:]))
    with pytest.raises(Rejected, match="nothing of it is left"):
        mesh_of(solid(mesh) - solid(solids.box((2, 2, 2))))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor alone leaves nothing to keep from")
def test_the_library_works_in_the_thread_it_is_called_in():
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.02
