"""The bet's original repository with its config as shipped; what it fetches from elsewhere is given.

In an environment of its packages, in its checkout. Names (of a package that fills gigabytes of memory) and
capitals (of a query to Wikidata) come from a file.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path.cwd()))
from kaarel_bet import generate_data

given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
generate_data.get_names = lambda config: given["names"][: config["dataset"]["n_names"]]
generate_data.get_countries_capitals = lambda: [tuple(pair) for pair in given["capitals"]]
Path("data").mkdir()
generate_data.generate_dataset(config)
Path("results/1").mkdir(parents=True)
for step in ("train", "test", "analyse_results"):
    command = [sys.executable, "-m", f"kaarel_bet.{step}", "--config", "config.yaml"]
    done = subprocess.run(
        [*command, "--results-dir", "results/1"],
        env=os.environ | {"PYTHONPATH": "."},
        stdout=sys.stderr,
    )
    assert done.returncode == 0, step
results = json.loads(Path("results/1/results.json").read_text(encoding="utf-8"))
tested = results["test"]
print(
    json.dumps(
        {
            "model": results["training"]["model_id"],
            "answered": {
                f"{name}/{which}": len(part["examples"])
                for name, both in tested.items()
                for which, part in both.items()
                if "examples" in part
            },
            "summary": results.get("summary")
            or {
                k: {
                    w: {m: p.get(m) for m in ("mean_country", "mean_capital")} for w, p in b.items()
                }
                for k, b in tested.items()
            },
        }
    )
)
