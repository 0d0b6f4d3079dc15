"""What can be stale: features, heads, sweeps, audits, the report; whether it is, and why."""
