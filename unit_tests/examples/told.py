"""The digests of runs, as a process tells them.

python -m unit_tests.examples.told data|methods FOLDER SETS
"""

import json
import sys

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.diagnoses.looking import diagnosed
from deq_fusion.training_structures.comparison.identity.identities import Identities
from deq_fusion.training_structures.comparison.methods import gather
from deq_fusion.training_structures.comparison.robustness import measured
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion


def told(what, folder, sets):
    """Returns, of each set, the digests of a run's data, or all methods' settings and digests."""
    identities = Identities(run_fusion, run_floor, robustness=measured, diagnose=diagnosed)
    found = []
    for name, place, settings in sets:
        recipe = RECIPES[name](f"{folder}/{place}", **settings)
        if what == "data":
            found.append(identities.data(recipe, 0))
            continue
        methods, _ = gather(recipe, FUSIONS, unimodal=True)
        found.append({m.name: [m.settings(), identities.of(m)["given"]] for m in methods})
    return json.loads(json.dumps(found).replace(str(folder), "FOLDER"))


if __name__ == "__main__":
    print(json.dumps(told(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
