"""What each layer of the jail costs a worker: the time from the fork until it is set up, with no layer, with
each alone, and with all, in turns. Prints a table; run by scripts/bench.

Usage: python3 layer_costs.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from handler import KERNEL_LAYERS, Handler

ALONE = ["pid_namespace", "mount_namespace", "network_namespace", "own_uid", "landlock", "seccomp"]
MODULE = "from weft import workflow\n@workflow\ndef nothing() -> None: pass\n"


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sets = {
        "none": KERNEL_LAYERS,
        **{layer: [other for other in KERNEL_LAYERS if other != layer] for layer in ALONE},
        "all": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        (bundle / "workflows").mkdir(parents=True)
        (bundle / "workflows" / "main.py").write_text(MODULE)
        bundle.parent.chmod(0o755)
        handlers = {name: Handler(jail={"off": off}) for name, off in sets.items()}
        boots: dict[str, list[float]] = {name: [] for name in sets}
        lives: dict[str, list[float]] = {name: [] for name in sets}
        try:
            for _ in range(rounds):
                for name, handler in handlers.items():
                    result = handler.attempt(bundle, "workflows.main", "nothing")
                    boots[name].append(result.of("ready")[0]["boot_ms"])
                    lives[name].append(float(result.exited["cpu_ms"]))
                    result.worker.close()
                    handler.workers.clear()
        finally:
            for handler in handlers.values():
                handler.close()
    base = statistics.median(boots["none"])
    print(f"{'layer':<20}{'fork to set up, p50':>22}{'more than none':>16}{'processor, mean':>18}")
    for name, values in boots.items():
        missing = handlers[name].ready["posture"]["missing"].get(name)
        if missing is not None:
            print(f"{name:<20}not to be had alone: {missing}")
            continue
        middle = statistics.median(values)
        mean = statistics.fmean(lives[name])
        print(f"{name:<20}{middle:>19.3f} ms{middle - base:>13.3f} ms{mean:>15.2f} ms")


if __name__ == "__main__":
    main()
