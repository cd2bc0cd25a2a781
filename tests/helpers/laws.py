"""What the tests of laws share: seeds, few examples where each is dear, torch's activations."""

from hypothesis import settings
from hypothesis import strategies as st

from lightning_stab.functional.activation_kinds import CATALOGUE

FEW = settings(max_examples=25)
SEEDS = st.integers(0, 10_000)
OF_TORCH = [name for name, row in CATALOGUE.items() if row.module is not None]
