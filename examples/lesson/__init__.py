"""The lesson's eight claims, one file each; `lab` trains, `results` holds what was measured."""
