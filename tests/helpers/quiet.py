"""Arguments of a Trainer that only trains: nothing is printed, logged or saved."""

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
