"""What a run has logged, read back from its event files with TensorBoard's own readers."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader


def events(folder):
    """Return the scalars of a log folder, by tag, as lists of (step, value)."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {t: [(e.step, e.value) for e in accumulator.Scalars(t)] for t in tags["scalars"]}
    return scalars, tags


def packed_events(folder, prefix):
    """Return for each event that holds a tag of this prefix its step and all its tags."""
    found = []
    for path in sorted(folder.rglob("events*")):
        for event in EventFileLoader(str(path)).Load():
            names = [value.tag for value in event.summary.value]
            if any(name.startswith(prefix) for name in names):
                found.append((event.step, names))
    return found
