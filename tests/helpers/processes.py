"""New processes that start in no time: forked from a server that has imported Lightning."""

import contextlib
import multiprocessing
import os
import runpy
import sys
import warnings

SECONDS = 600  # of a busy machine; then a process that waits for something is ended
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["lightning.pytorch", "torch.distributed.fsdp", "pytest"])


def run_code(program, folder, path=(), code=0):
    """Run a program in a process of its own; return what it printed, which a failure shows.

    Args:
        program: source text, or a tuple of a module's name and its arguments, as for `python -m`.
        folder: where it works.
        path: what stands first on its search path for modules.
        code: how it has to end.
    """
    output = folder / "printed.txt"
    process = SERVER.Process(
        target=_run, args=(program, folder, [str(each) for each in path], output)
    )
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    printed = output.read_text()
    assert process.exitcode == code, printed
    return printed


def _run(program, folder, path, output):
    redirect(output)
    os.chdir(folder)
    sys.path[:0] = path
    warnings.simplefilter("ignore")
    if isinstance(program, str):
        exec(compile(program, "<test>", "exec"), {"__name__": "__main__"})
        return
    name, *sys.argv[1:] = program
    with contextlib.suppress(SystemExit):
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def redirect(path):
    """Send what this process prints to a file."""
    output = path.open("w")
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
