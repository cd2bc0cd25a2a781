"""The callbacks without a Trainer: in a plain loop, under Fabric, under Hugging Face's Trainer."""

from lightning_stab.loops.watch import Watch, watch

__all__ = ["Watch", "watch"]
