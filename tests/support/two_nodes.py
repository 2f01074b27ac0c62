"""Fits by LightGBM on Ray Train, in a network namespace that has the loopback interface only.

LightGBM opens its ports on all interfaces, and tests listen on the loopback interface only.

    unshare --map-root-user --net python -m support.two_nodes REQUESTS RESULTS
"""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil

from ml_core.training.request import TrainingRequest
from support.waiting import wait_until

_NAMESPACE = ("unshare", "--map-root-user", "--net")
_IFF_UP, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x1, 0x8913, 0x8914
_WITHIN_S = 500.0
_ROUNDS = 5
NODES = (1.0, 1.0)
"""Their cores."""


def is_possible() -> bool:
    """Whether this user can make such a namespace."""
    try:
        return subprocess.run([*_NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def fitted_on_two_nodes(requests: dict[str, TrainingRequest], home: Path, folder: Path) -> dict[str, Any]:
    """What each request gave (see ``main``), by its name."""
    (folder / "requests").write_bytes(pickle.dumps(requests))
    environment = {
        **os.environ,
        "MLCORE_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_raylet_start_wait_time_s": "120",  # as long as a busy machine needs
        "RAY_worker_niceness": "0",
    }
    command = [*_NAMESPACE, sys.executable, "-m", "support.two_nodes", folder / "requests", folder / "results"]
    with subprocess.Popen(command, env=environment) as child:
        try:
            assert child.wait(_WITHIN_S) == 0
        except subprocess.TimeoutExpired:
            for each in (*psutil.Process(child.pid).children(recursive=True), child):
                each.kill()
            raise
    found: dict[str, Any] = pickle.loads((folder / "results").read_bytes())
    return found


def main(requests: str, results: str) -> None:
    """Fit each request on a cluster of two nodes with a core each; the result is a fitted model or an error.

    While ``killed`` is fitted, a worker is killed after some checkpoints, then a node, which comes back; in ``refused``
    one worker raises an error while the other waits for it.
    """
    _bring_up("lo")
    from ray.cluster_utils import Cluster

    from ml_core.training.distributed import boosting
    from ml_core.training.distributed.cluster import joined, node_cores

    cluster = Cluster()
    _, second = [cluster.add_node(num_cpus=cores, include_dashboard=False) for cores in NODES]
    os.environ["RAY_ADDRESS"] = cluster.address
    found: dict[str, Any] = {}
    started = Path(results).with_name("started")
    tempfile.tempdir = tempfile.mkdtemp(dir=started.parent)
    try:
        with joined(2):
            found["nodes"] = node_cores()
            for name, request in pickle.loads(Path(requests).read_bytes()).items():
                if name == "killed":
                    sizes = started.with_name("sizes")
                    work = patch.object(boosting, "_work", _waiting(boosting._work, sizes))
                    with work, _killing(found, sizes, cluster, second):
                        found[name] = _fit(request)
                    found["sizes"] = sizes.read_text()
                elif name == "refused":
                    with patch.object(boosting, "_work", _refusing(boosting._work, started)):
                        found[name] = _fit(request)
                else:
                    found[name] = _fit(request)
    finally:
        cluster.shutdown()
    found["workers"] = started.read_text()
    found["left"] = list(Path(tempfile.tempdir).iterdir())
    Path(results).write_bytes(pickle.dumps(found))


def _fit(request: TrainingRequest) -> Any:
    from ml_core.training.distributed.execution import execution_of
    from ml_core.training.fit import fit_model
    from ml_core.training.strategies import Strategy

    try:
        return fit_model(request, execution=execution_of(Strategy.LIGHTGBM_ON_RAY_TRAIN, 2))
    except Exception as error:  # noqa: BLE001 - a test looks at it
        return error


@contextmanager
def _killing(found: dict[str, Any], sizes: Path, cluster: Any, node: Any) -> Iterator[None]:
    """Kill a worker after three checkpoints and the node after more, then add one when the other worker is alone.

    Notes what the workers listen on before, and all rounds that are seen.
    """
    import ray

    from ml_core.training.distributed import boosting

    made: list[Any] = []
    actor = boosting._Checkpoint

    def options(**given: Any) -> Any:
        return SimpleNamespace(remote=lambda: made.append(actor.options(**given).remote()) or made[0])

    def state() -> Any:
        state = ray.get(made[0].get.remote())
        found["rounds"].append(state.rounds)
        return state

    def has_been_formed(group: int) -> bool:
        # Ray Train counts the nodes every 20 s; this has it do so now.
        ray.get(ray.get_actor("AutoscalingCoordinator", "AutoscalingCoordinator")._tick.remote())
        return len(sizes.read_text().split()) == group

    def wait_for_trees_of(group: int) -> None:
        wait_until(lambda: has_been_formed(group), _WITHIN_S)
        start = int(sizes.read_text().split()[-1].partition("@")[2])
        wait_until(lambda: state().rounds >= start + _ROUNDS, _WITHIN_S)

    def kill() -> None:
        wait_until(lambda: made and state().rounds >= 3, _WITHIN_S)
        found["round"] = found["rounds"][-1]
        found["modes"] = [each.stat().st_mode & 0o777 for each in Path(tempfile.gettempdir()).iterdir()]
        started = psutil.Process().children(recursive=True)
        workers = [each for each in started if "RayTrainWorker" in " ".join(each.cmdline())]
        sockets = [each for worker in workers for each in worker.net_connections("tcp")]
        found["listening"] = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
        found["connected"] = sum(each.status == psutil.CONN_ESTABLISHED for each in sockets)
        workers[-1].kill()
        wait_for_trees_of(2)
        cluster.remove_node(node, allow_graceful=False)
        wait_for_trees_of(3)
        with patch("ray._private.utils.set_sigterm_handler"):  # this is not the main thread
            cluster.add_node(num_cpus=NODES[1], include_dashboard=False)  # ends with this thread
        wait_until(lambda: state().is_done, _WITHIN_S)

    found["rounds"] = []
    patched = {"_Checkpoint": SimpleNamespace(options=options), "_CHECKPOINT_S": 0.0, "_RESIZE_S": 1.0}
    with patch.multiple(boosting, **patched):
        watching = threading.Thread(target=kill, daemon=True)
        watching.start()
        yield
        watching.join(_WITHIN_S)


def _waiting(work: Callable[[dict[str, Any]], None], sizes: Path) -> Callable[[dict[str, Any]], None]:
    """The work: groups of workers note their size and first round; the second and third grow some trees and wait."""

    def waiting(config: dict[str, Any]) -> None:
        import lightgbm
        import ray
        import ray.train

        context, train = ray.train.get_context(), lightgbm.train
        if context.get_world_rank() == 0:
            with sizes.open("a") as file:
                file.write(f"{context.get_world_size()}@{ray.get(config['checkpoint'].get.remote()).rounds} ")

        def slow(*given: Any, callbacks: list[Any], **named: Any) -> Any:
            def wait(env: Any) -> None:
                if env.iteration - env.begin_iteration >= _ROUNDS:
                    wait_until(lambda: False, _WITHIN_S)  # Ray ends this process

            return train(*given, callbacks=[*callbacks, wait], **named)

        waits = context.get_world_rank() == 0 and len(sizes.read_text().split()) in (2, 3)  # the others need the first
        with patch.object(lightgbm, "train", slow if waits else train):
            work(config)

    return waiting


def _refusing(work: Callable[[dict[str, Any]], None], started: Path) -> Callable[[dict[str, Any]], None]:
    def refusing(config: dict[str, Any]) -> None:
        import ray.train

        rank = ray.train.get_context().get_world_rank()
        with started.open("a") as file:
            file.write(f"{rank} ")
        if rank == 1:
            raise ValueError("no such target")
        work(config)

    return refusing


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", interface.encode(), 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | _IFF_UP))


if __name__ == "__main__":
    main(*sys.argv[1:])
