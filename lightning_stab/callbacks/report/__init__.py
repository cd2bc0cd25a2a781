"""The run as one page, dashboards and notices: `StabilityReport`."""
