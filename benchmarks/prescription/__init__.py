"""How often a cure that `prescribe` has tried makes a sick program as good as its healthy twin."""
