"""Where trials run, with Ray and the processes given by hand."""

import os
import sys
from types import SimpleNamespace

import pytest

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription import engines


def run_trial(program, trial):
    return f"{program} {trial}"


class Ray:
    """What is used of Ray, in this process."""

    def __init__(self, running=False, **resources):
        self.calls, self.running, self.resources = [], running, resources

    def is_initialized(self):
        return self.running

    def init(self, **options):
        self.calls.append(("init", options))

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.calls.append(("remote", options))
        return lambda function: SimpleNamespace(remote=lambda *args: function(*args))

    def put(self, value):
        return value

    def get(self, values):
        return values

    def shutdown(self):
        self.calls.append(("shutdown", {}))


@pytest.fixture(autouse=True)
def plain_trial(monkeypatch):
    monkeypatch.setattr(engines, "run_trial", run_trial)


@pytest.mark.parametrize(
    ("resources", "jobs", "options"),
    [
        ({"CPU": 8.0}, 4, {"num_cpus": 2}),
        ({"CPU": 3.0}, 4, {"num_cpus": 1}),
        ({"CPU": 8.0, "GPU": 1.0}, 2, {"num_cpus": 4, "num_gpus": 0.5}),
        ({"CPU": 8.0, "GPU": 8.0}, 2, {"num_cpus": 4, "num_gpus": 1.0}),
    ],
)
def test_ray_gets_a_share_of_the_cluster_for_each_trial(monkeypatch, resources, jobs, options):
    for running in (False, True):
        ray = Ray(running, **resources)
        monkeypatch.setitem(sys.modules, "ray", ray)
        with engines.engine_for("p", "ray", jobs) as engine:
            assert list(engine(["a", "b"])) == ["p a", "p b"]
        if not running:  # its workers can import what this process can
            began = ray.calls[0][1].pop("runtime_env")["env_vars"]["PYTHONPATH"]
            assert set(filter(None, sys.path)) <= set(began.split(os.pathsep))
        own = [("init", {"log_to_driver": False}), ("remote", options), ("shutdown", {})]
        assert ray.calls == (own[1:2] if running else own)


def test_a_cluster_that_was_started_for_it_is_shut_down_after_a_failure(monkeypatch):
    ray = Ray(CPU=1)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(KeyError), engines.engine_for("p", "ray", 1):
        raise KeyError
    assert ray.calls[-1] == ("shutdown", {})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConflictError, match="needs Ray, which is not installed"):
        engines.engine_for("p", "ray", 1).__enter__()


class Pool:
    def __init__(self, *args):
        self.args, self.ends = args, []
        Pool.latest = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, function, values):
        return map(function, values)

    def shutdown(self, **options):
        self.ends.append(options)


@pytest.mark.parametrize(("jobs", "threads"), [(2, 4), (3, 2), (9, 1)])
def test_the_processes_share_the_threads(monkeypatch, jobs, threads):
    monkeypatch.setattr(engines, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(engines.torch, "get_num_threads", lambda: 8)
    with engines.engine_for("p", "local", jobs) as engine:
        assert list(engine(["a"])) == ["p a"]
    workers, context, start, given = Pool.latest.args
    assert (workers, given) == (jobs, (threads,))
    assert context.get_start_method() == "spawn"
    assert start is engines.torch.set_num_threads
    assert Pool.latest.ends == [{"wait": False, "cancel_futures": True}]
    with engines.engine_for("p", "local", 1) as engine:  # in this process
        assert list(engine(["a"])) == ["p a"]
    assert Pool.latest.args[0] == jobs


def test_what_cannot_be_sent_to_a_process_or_is_no_engine_is_refused():
    with pytest.raises(InvalidArgumentError, match="importable by other processes"):
        engines.engine_for(lambda: 0, "local", 2).__enter__()
    with pytest.raises(InvalidArgumentError, match="`engine` must be one of"):
        engines.engine_for("p", "rya", 1).__enter__()
    with pytest.raises(InvalidArgumentError, match="`jobs` must be"):
        engines.engine_for("p", "local", 0).__enter__()
